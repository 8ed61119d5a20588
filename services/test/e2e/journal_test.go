package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// fate is what a sender knows of a message.
type fate int

const (
	unknown  fate = iota // posted, and not answered, or with an answer that leaves it open
	accepted             // answered 2xx
	refused              // answered otherwise: nothing of it may be stored
)

// journal is what senders and phones saw of one Trunkline: every message by its text, of which no two are the same.
type journal struct {
	lease time.Duration // of the accounts

	mu       sync.Mutex
	messages map[string]*entry
	ended    map[string]bool // hashes that a report answered 2xx told of
	accepted int
	wrong    []string
	doubled  []string              // hashes of what was handed out within a lease
	reached  map[int]chan struct{} // closed when so many messages are accepted
	refusals map[string]int        // by status and code
}

type entry struct {
	phone    string
	fate     fate
	hash     string
	handouts []handout
	reported time.Time // when a report of success was answered 2xx
}

// handout is a message on a page that a phone got.
type handout struct {
	asked, answered time.Time
	device          string
}

func newJournal(lease time.Duration) *journal {
	return &journal{lease: lease, messages: map[string]*entry{}, ended: map[string]bool{}, reached: map[int]chan struct{}{}, refusals: map[string]int{}}
}

func (j *journal) wrongf(format string, args ...any) {
	j.wrong = append(j.wrong, fmt.Sprintf(format, args...))
}

// posting notes messages that are about to be posted.
func (j *journal) posting(messages []sms) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, m := range messages {
		if j.messages[m.Message] == nil {
			j.messages[m.Message] = &entry{phone: m.Phone}
		}
	}
}

// posted notes what a post was answered, and says whether that leaves open what became of it.
func (j *journal) posted(messages []sms, keyed bool, got answer, err error) (open bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	said := refused
	switch {
	case got.status == http.StatusOK:
		said = accepted // whether the rest of the answer came or not
	case err != nil, got.status == http.StatusServiceUnavailable && (keyed || got.queued().Code == "outcome_unknown"):
		return true // a repeat may have been stored the first time
	}
	if said == refused {
		j.refusals[fmt.Sprint(got.status, " ", got.queued().Code)]++
	}
	items := got.queued().Items
	for i, m := range messages {
		e := j.messages[m.Message]
		if said == accepted && e.fate != accepted {
			j.accepted++
			if c := j.reached[j.accepted]; c != nil {
				close(c)
			}
		}
		e.fate = said
		if len(items) == len(messages) {
			j.is(e, m.Message, items[i].Hash)
		}
	}
	return false
}

// after gives a channel that is closed once n more messages are accepted.
func (j *journal) after(n int) <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := make(chan struct{})
	j.reached[j.accepted+n] = c
	return c
}

// is checks that a text has one hash only, whoever names it.
func (j *journal) is(e *entry, text, hash string) {
	if e.hash != "" && e.hash != hash {
		j.wrongf("%s is %s and %s: it was stored twice", text, e.hash, hash)
	}
	e.hash = hash
}

// pulled notes a page, and checks that each message on it may be there.
func (j *journal) pulled(device string, asked time.Time, page []outgoing) {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, m := range page {
		e := j.messages[m.Text]
		if e == nil {
			j.wrongf("%s was handed out and never posted", m.Text)
			continue
		}
		j.is(e, m.Text, m.Hash)
		if m.Phone != e.phone {
			j.wrongf("%s was handed out for another number", m.Text)
		}
		if !e.reported.IsZero() && e.reported.Before(asked) {
			j.wrongf("%s was handed out after its report", m.Text)
		}
		for _, before := range e.handouts {
			// The first lease began after it was asked for, the second before it was answered.
			if apart := now.Sub(before.asked); apart < j.lease {
				j.wrongf("%s was handed to %s and %v later, within its lease, to %s", m.Text, before.device, apart, device)
				j.doubled = append(j.doubled, m.Hash)
			}
		}
		e.handouts = append(e.handouts, handout{asked, now, device})
	}
}

// reported notes that a report of success was answered 2xx.
func (j *journal) reported(page []outgoing) {
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, m := range page {
		j.ended[m.Hash] = true
		if e := j.messages[m.Text]; e != nil && e.reported.IsZero() {
			e.reported = now
		}
	}
}

// count sums up what the journal holds.
type count struct {
	Accepted, Delivered, Lost int // answered 2xx; of them handed out and reported; of them not
	Doubled                   int // handed out again within a lease or after the report, or stored twice
	Again                     int // handed out again as they should, after a lease that nobody reported on
	Unknown, Stored           int // never answered; of them stored all the same
	Refused                   int
}

func (j *journal) count() count {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := count{Doubled: len(j.wrong)}
	for _, e := range j.messages {
		c.Again += max(len(e.handouts)-1, 0)
		delivered := len(e.handouts) > 0 && !e.reported.IsZero()
		switch {
		case e.fate == accepted && delivered:
			c.Accepted++
			c.Delivered++
		case e.fate == accepted:
			c.Accepted++
			c.Lost++
		case e.fate == refused:
			c.Refused++
		default:
			c.Unknown++
			if len(e.handouts) > 0 {
				c.Stored++
			}
		}
	}
	return c
}

// open gives those of the messages with these hashes that have not been handed out and reported. A text can have two: what
// was not synced may lose a request's marker and keep its messages, and the repeat is stored again.
func (j *journal) open(hashes []string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(hashes), func(hash string) bool { return j.ended[hash] })
}

// check fails the test for everything that is not as it has to be once all has been drained.
func (j *journal) check(t *testing.T) count {
	t.Helper()
	c := j.count()
	j.mu.Lock()
	defer j.mu.Unlock()
	for text, e := range j.messages {
		switch {
		case e.fate == accepted && len(e.handouts) == 0:
			j.wrongf("%s was accepted and never handed out", text)
		case e.fate == refused && len(e.handouts) > 0:
			j.wrongf("%s was refused and handed out", text)
		case len(e.handouts) > 0 && e.reported.IsZero():
			j.wrongf("%s was handed out and never reported", text)
		}
	}
	slices.Sort(j.wrong)
	for _, wrong := range j.wrong[:min(len(j.wrong), 20)] {
		t.Error(wrong)
	}
	if len(j.wrong) > 20 {
		t.Errorf("and %d more", len(j.wrong)-20)
	}
	return c
}
