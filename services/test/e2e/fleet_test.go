package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// fleet is senders and phones of several accounts that reach Trunkline through several ingresses, and go on whichever of
// its parts stands still or is gone.
type fleet struct {
	*trunkline
	host     *apartHost
	journal  *journal
	record   *record
	accounts []string
	tokens   []string
	senders  []*sender
	seed     uint64
	urls     atomic.Pointer[[]string]
	waits    waits
	faithful bool // no phone forgets a page
}

// waits are the longest that anybody waited for what they asked for, over all attempts, by what that was.
type waits struct {
	mu      sync.Mutex
	longest map[string]time.Duration
	count   map[string]int
}

func (w *waits) note(what string, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.longest == nil {
		w.longest = map[string]time.Duration{}
	}
	if w.count == nil {
		w.count = map[string]int{}
	}
	w.count[what]++
	w.longest[what] = max(w.longest[what], time.Since(since))
}

// counts says how often each was waited for in vain no longer.
func (w *waits) counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.count)
}

// take gives the longest waits, and begins again.
func (w *waits) take() map[string]time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.longest
	w.longest = nil
	return taken
}

const (
	fleetLease = 4 * time.Second
	// A phone that waits longer for an answer than a lease lasts cannot know that what it gets is still its own.
	fleetPatience = fleetLease * 7 / 8
	// slowPace is between the reports of a phone that takes its time: its pages outlast their first lease.
	slowPace = fleetLease / 4
	// pace is between the requests of one sender.
	pace = 50 * time.Millisecond
	// retry is how long one waits who got no answer.
	retry = 100 * time.Millisecond
)

func (f *fleet) random(stream int) *rand.Rand { return rand.New(rand.NewPCG(f.seed, uint64(stream))) }

// locate notes where the ingresses are now.
func (f *fleet) locate() {
	var urls []string
	for _, p := range f.host.parts {
		if p.role == "ingress" {
			urls = append(urls, p.url)
		}
	}
	f.urls.Store(&urls)
}

// through speaks through one of the ingresses.
func (f *fleet) through(ctx context.Context, draw *rand.Rand, account int) api {
	urls := *f.urls.Load()
	return api{ctx, f.client, urls[draw.IntN(len(urls))] + "/api/" + f.tokens[account]}
}

// rest waits, and says whether to go on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// send posts until ctx is done or the month's limit is reached, and repeats what got no answer until it gets one.
func (f *fleet) send(ctx context.Context, s *sender) {
	var since time.Time
	for ctx.Err() == nil && !s.full {
		if len(s.open) == 0 {
			messages := make([]sms, 1+s.rand.IntN(4))
			for i := range messages {
				messages[i] = sms{number(s.posted), text(s.name, s.posted)}
				s.posted++
			}
			f.journal.posting(messages)
			s.open, since = messages, time.Now()
		}
		// Not ctx: what has been sent is waited for.
		s.post(f.through(f.Context(), s.rand, s.account), f.journal, s.open)
		if len(s.open) == 0 {
			f.waits.note("post of "+f.accounts[s.account], since)
		}
		if !rest(ctx, pace) {
			break
		}
	}
	for len(s.open) > 0 && rest(f.Context(), retry) {
		s.post(f.through(f.Context(), s.rand, s.account), f.journal, s.open)
	}
}

// runSenders lets all senders work, until all have ended or ctx is done.
func (f *fleet) runSenders(ctx context.Context) (wait func()) {
	var all sync.WaitGroup
	for _, s := range f.senders {
		all.Go(func() { f.send(ctx, s) })
	}
	return all.Wait
}

// carrier is a phone of a fleet.
type carrier struct {
	*fleet
	number  int
	device  string
	account int
	rand    *rand.Rand
	slow    bool // reports one message at a time, and so keeps the others
	pages   int
}

func (f *fleet) carriers(fast, slow int) (all []*carrier) {
	for account := range f.accounts {
		for k := range fast + slow {
			n := len(all)
			all = append(all, &carrier{
				fleet: f, number: n, device: fmt.Sprintf("a%dp%d", account, k), account: account, rand: f.random(1000 + n), slow: k >= fast,
			})
		}
	}
	return all
}

// run pulls and reports until ctx is done. Some pages it forgets, as a phone does that dies.
func (c *carrier) run(ctx context.Context) {
	since := time.Now()
	for ctx.Err() == nil {
		limit := 1 + c.rand.IntN(30)
		if c.slow {
			limit = 2 * int(fleetLease/slowPace)
		}
		asked := time.Now()
		page, err := c.through(ctx, c.rand, c.account).pull(c.device, limit, 1)
		if err != nil {
			rest(ctx, retry)
			continue
		}
		c.waits.note("pull of "+c.accounts[c.account], since)
		c.journal.pulled(c.device, asked, page)
		c.pages++
		name := fmt.Sprintf("%s's %d", c.device, c.pages)
		for _, m := range page {
			c.record.add(c.number, handedOut{m.Hash, name, c.record.since(asked), c.record.since(time.Now())}, asked)
		}
		switch {
		case len(page) == 0, !c.faithful && c.rand.IntN(6) == 0:
		case c.slow:
			c.reportEach(ctx, name, page)
		default:
			c.report(ctx, name, page, nil)
		}
		since = time.Now()
	}
}

// reportEach reports one message after the other, each in good time for the rest.
func (c *carrier) reportEach(ctx context.Context, name string, page []outgoing) {
	for i := range page {
		if i > 0 && !rest(ctx, slowPace) {
			return
		}
		if !c.report(ctx, name, page[i:i+1], page[i+1:]) {
			return
		}
	}
}

// report says that messages were sent until it is answered, and notes that this renewed the others of the page.
func (c *carrier) report(ctx context.Context, name string, sent, others []outgoing) bool {
	for began := time.Now(); ctx.Err() == nil; { // the first attempt may have counted, and only its answer is lost
		updated, err := c.through(ctx, c.rand, c.account).report(c.device, success, sent)
		if err != nil {
			rest(ctx, retry)
			continue
		}
		answered := c.record.since(time.Now())
		c.journal.reported(sent)
		for _, m := range sent {
			c.record.add(c.number, ended{m.Hash}, began)
		}
		for _, m := range others {
			if updated == len(sent) {
				c.record.add(c.number, renewed{m.Hash, name, c.record.since(began), answered}, began)
			}
		}
		return true
	}
	return false
}
