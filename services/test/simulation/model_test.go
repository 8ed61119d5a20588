package simulation

import (
	"fmt"
	"sync"
	"time"
)

// model is what senders, phones and operators know together, which is less
// than what the product knows: it judges only what they can prove.
type model struct {
	mu       sync.Mutex
	sms      map[string]*sms // by text, which is drawn once
	broken   []string
	top      map[string]topmost
	disorder bool     // an answer was lost: what phones see need not be in order any more
	wrong    []*wrong // when the product's clock may have been
	stats    stats
}

type stats struct {
	Accepted, Unknown, Refused, HandedOut, Reported, Cancelled, Requeued int
	Crashes, HeldBack, Steps                                             int
	Simulated                                                            time.Duration
}

// topmost is the newest message of a sender that went out, and when.
type topmost struct {
	number int
	at     time.Time
}

// sms is one message on its way.
type sms struct {
	account, sender string
	number          int    // the sender's, rising
	hash            string // empty: the sender was not told
	accepted        bool   // the sender was told that it is accepted
	refused         bool   // the sender was told that nothing was stored
	since           time.Time
	name            string    // the sender's id of it, in a dialect that does not tell the hash then
	due             time.Time // not to be handed out before; zero: at once
	until           time.Time // nor from then on, unless an operator gives it more time; zero: not within a run

	holder   string // the phone that has it, as far as is known
	page     *pageOf
	handed   int
	offers   int // since the last requeue
	ended    string
	endedAt  time.Time
	reopened bool // an operator may have offered it again
	extended bool // an operator may have given it more time
	touched  bool // a phone or an operator may have ended it: another report need not renew
}

// pageOf is what one pull gave to a phone.
type pageOf struct {
	phone    string
	named    bool
	asked    time.Time // the lease began no sooner
	reported time.Time // the last report on it that was answered was sent then
	lease    time.Duration
	policy   string
}

// until is when the lease ends at the soonest.
func (p *pageOf) until() time.Time {
	start := p.asked
	if p.reported.After(start) {
		start = p.reported
	}
	return start.Truncate(time.Millisecond).Add(p.lease)
}

func newModel() *model {
	return &model{sms: map[string]*sms{}, top: map[string]topmost{}}
}

func (m *model) breach(format string, args ...any) {
	if len(m.broken) < 20 {
		m.broken = append(m.broken, fmt.Sprintf(format, args...))
	}
}

// posted says that a sender is about to send these texts.
func (m *model) posted(account, sender string, texts []string, numbers []int, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, text := range texts {
		m.sms[text] = &sms{account: account, sender: sender, number: numbers[i], since: now}
	}
}

// scheduled says when a text that was posted is due, until when it is valid, and how its sender calls it.
func (m *model) scheduled(text, name string, due, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sms[text].name, m.sms[text].due, m.sms[text].until = name, due, until
}

// outcome of a post.
type outcome int

const (
	accepted outcome = iota
	refused
	unknown
)

// answered says what a sender was told of its texts.
func (m *model) answered(texts, hashes []string, o outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch o {
	case refused:
		m.stats.Refused += len(texts)
		for _, text := range texts {
			m.sms[text].refused = true
		}
		return
	case unknown:
		m.stats.Unknown += len(texts)
		m.disorder = true
		return
	}
	fresh := int64(0)
	for i, text := range texts {
		s := m.sms[text]
		if !s.accepted {
			fresh++
		}
		if s.accepted = true; hashes[i] == "" {
			continue // it was not told
		}
		if s.hash != "" && s.hash != hashes[i] {
			m.breach("%s has two hashes: %s and %s", text, s.hash, hashes[i])
		}
		s.hash = hashes[i]
	}
	m.stats.Accepted += int(fresh)
}

// handedOut says that a phone was given these texts by a pull that ran from
// asked to now.
func (m *model) handedOut(p *pageOf, account string, texts, hashes []string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.HandedOut += len(texts)
	last := map[string]int{} // the number of each sender's last new message
	seen := map[string]bool{}
	for i, text := range texts {
		s := m.sms[text]
		switch {
		case s == nil:
			m.breach("phone %s got a text that nobody sent", p.phone)
			continue
		case seen[text]:
			m.breach("phone %s got %s twice in one page", p.phone, text)
		case s.account != account:
			m.breach("phone %s of %s got %s of %s", p.phone, account, text, s.account)
		case s.refused:
			m.breach("%s was refused, and handed out to %s", text, p.phone)
		case s.hash != "" && s.hash != hashes[i]:
			m.breach("%s has hash %s, and was handed out as %s", text, s.hash, hashes[i])
		}
		seen[text] = true
		if m.furthest(s.since, now).Before(s.due) {
			m.breach("%s is due at %s, and was handed out to %s at %s", text, stamp(s.due), p.phone, stamp(now))
		}
		// Of one whose hash nobody was told, nobody knows what an operator did.
		if !s.until.IsZero() && s.hash != "" && !s.extended && p.asked.After(s.until) && !m.doubted(p.asked) {
			m.breach("%s was valid until %s, and was handed out to %s, who asked at %s", text, stamp(s.until), p.phone, stamp(p.asked))
		}
		if s.ended != "" && !s.reopened && p.asked.After(s.endedAt) {
			m.breach("%s ended as %s at %s, and was handed out to %s at %s", text, s.ended, stamp(s.endedAt), p.phone, stamp(now))
		}
		if s.page != nil && !s.reopened && s.ended == "" && s.holder != p.phone && now.Before(s.page.until()) {
			m.breach("%s is with %s until %s at least, and was handed out to %s at %s", text, s.holder, stamp(s.page.until()), p.phone, stamp(now))
		}
		if s.page != nil && !s.reopened && s.ended == "" && s.holder == p.phone && p.policy != "hold" && now.Before(s.page.until()) {
			m.breach("%s is with %s until %s at least, and was handed out to it again at %s", text, s.holder, stamp(s.page.until()), stamp(now))
		}
		if s.page != nil && !s.reopened && s.page.policy == "hold" && (!s.page.named || !p.named || s.holder != p.phone) {
			m.breach("%s is held for %s (named: %v), and was handed out to %s (named: %v)", text, s.holder, s.page.named, p.phone, p.named)
		}
		s.offers++
		if p.policy == "retry" && s.offers > attempts && !s.reopened {
			m.breach("%s was handed out %d times, %d are allowed", text, s.offers, attempts)
		}
		if s.handed == 0 && !s.reopened && !m.disorder {
			if before, ok := last[s.sender]; ok && s.number < before {
				m.breach("phone %s got %s after number %d of the same sender", p.phone, text, before)
			}
			if top, ok := m.top[s.sender]; ok && s.number < top.number && p.asked.After(top.at) {
				m.breach("phone %s got %s at %s, after number %d of the same sender went out at %s", p.phone, text, stamp(now), top.number, stamp(top.at))
			}
			last[s.sender] = s.number
		}
		s.handed++
		s.holder, s.page, s.hash = p.phone, p, hashes[i]
		if s.reopened {
			s.reopened, s.ended, s.touched = false, "", false
		}
	}
	for sender, number := range last {
		if top := m.top[sender]; number > top.number {
			m.top[sender] = topmost{number, now}
		}
	}
}

// reporting says that a phone is about to report, and whether one of its texts
// has surely not ended until the report is answered: that renews the page.
func (m *model) reporting(texts []string, now time.Time) (untouched bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, text := range texts {
		s := m.sms[text]
		expires := !s.until.IsZero() && !s.extended && now.Add(reportWithin).After(s.until)
		untouched = untouched || !s.touched && !expires
		s.touched = true
	}
	return untouched
}

// reported says that a phone's report was answered: it was sent at began, and
// all of it counted if whole.
func (m *model) reported(p *pageOf, texts []string, states []int, whole, untouched bool, began, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, text := range texts {
		s := m.sms[text]
		m.stats.Reported++
		// A report that was on its way when the lease ended may have come too late.
		if untouched && s.page == p && now.Before(p.until()) && began.After(p.reported) {
			p.reported = began
		}
		switch {
		case states[i] == 2:
			s.ended, s.endedAt, s.reopened = "delivered", now, false
		case whole && s.ended != "delivered" && !s.reopened:
			s.ended, s.endedAt = "failed", now
		}
	}
}

// deciding says that an operator is about to decide about these.
func (m *model) deciding(hashes []string, requeue bool) {
	m.byHash(hashes, func(s *sms) {
		s.touched = true
		if requeue && s.ended != "delivered" {
			s.reopened, s.extended = true, true
		}
	})
}

// decided says which of them the operator was told are changed.
func (m *model) decided(hashes []string, requeue bool, now time.Time) {
	m.byHash(hashes, func(s *sms) {
		switch {
		case requeue:
			m.stats.Requeued++
			s.offers = 0
		case s.ended == "":
			m.stats.Cancelled++
			s.ended, s.endedAt = "cancelled", now
		}
	})
}

func (m *model) byHash(hashes []string, f func(*sms)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wanted := map[string]bool{}
	for _, hash := range hashes {
		wanted[hash] = true
	}
	for _, s := range m.sms {
		if wanted[s.hash] {
			f(s)
		}
	}
}

// crashed says that answers may have been lost.
func (m *model) crashed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disorder = true
	m.stats.Crashes++
}

func stamp(t time.Time) string { return t.UTC().Format("02T15:04:05.000") }
