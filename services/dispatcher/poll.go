package dispatcher

import (
	"sync"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// lookAgainAfter is when a phone that waits looks again for messages that another dispatcher has fetched.
	lookAgainAfter = time.Second
	// Limit: 1,000 phones of an account wait in a shard's dispatcher to be woken by work. Beyond it: a phone looks for
	// work every 8 s instead, until its wait is over.
	// Used up by: one account with many phones, at several ingresses together. Hurts: only that account.
	// Test: TestPolls_Bounds.
	maxWaiting = 1000
	// Limit: 8,192 phones of all accounts wait so in a shard's dispatcher, at about 11 KB each. Beyond it: the account
	// that has most of them gives way, phone by phone, and those phones look every 8 s.
	// Used up by: many accounts together. Hurts: only the account that has most; one that has fewer loses nothing.
	// Test: TestPolls_Bounds.
	maxAllWaiting = 8192
)

// polls are the phones that wait for work. New work wakes one phone of its account
// that can take it, and a phone that leaves work behind wakes the next one. So the
// cost of a wake-up grows with the messages, and not with the phones that wait.
type polls struct {
	mu      sync.Mutex
	account map[streams.AccountID][]*poll // first come, first served
	name    map[string]*poll
	later   map[streams.AccountID]*lookAgain
	number  int
	stopped bool
}

// lookAgain wakes phones later, for work that another dispatcher has fetched and
// may put back.
type lookAgain struct {
	timer *time.Timer
	of    map[wakeKey]bool
}

// wakeKey says which phones the work in a lane is for.
type wakeKey struct {
	target streams.DeviceID // zero: any phone
	class  streams.Class
}

func keyOf(l streams.Lane) wakeKey { return wakeKey{l.Target, l.Class} }

type poll struct {
	account streams.AccountID
	device  streams.DeviceID
	other   bool
	name    string
	woken   chan struct{} // has a token when there may be work
	ended   chan struct{} // closed when it is over: the phone hung up, the dispatcher stops, or it gives way
	crowded bool          // it gave way; written before ended is closed
	once    sync.Once
}

func (p *poll) end() { p.once.Do(func() { close(p.ended) }) }

// takes says whether the phone can take work of a lane.
func (p *poll) takes(w wakeKey) bool {
	return (w.target == 0 || w.target == p.device) && (w.class == streams.Text || p.other)
}

// join starts a wait, which the caller ends with leave. It is nil if too many
// phones wait.
func (ps *polls) join(q request.Pull) *poll {
	p := &poll{
		account: q.Account, device: q.Device, other: q.Other, name: q.Poll,
		woken: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.account == nil {
		ps.account, ps.name = map[streams.AccountID][]*poll{}, map[string]*poll{}
		ps.later = map[streams.AccountID]*lookAgain{}
	}
	if own := len(ps.account[q.Account]); own >= maxWaiting || ps.number >= maxAllWaiting && !ps.giveWay(own) {
		return nil
	}
	ps.number++
	ps.account[q.Account] = append(ps.account[q.Account], p)
	if p.name != "" {
		ps.name[p.name] = p
	}
	if ps.stopped {
		p.end()
	}
	return p
}

// giveWay ends a wait of the account that has most, if that has more than an
// account with own waits would have with one more. The caller holds the lock.
func (ps *polls) giveWay(own int) bool {
	var most []*poll
	for _, waiting := range ps.account {
		if len(waiting) > len(most) {
			most = waiting
		}
	}
	if len(most) <= own+1 {
		return false
	}
	last := most[len(most)-1]
	last.crowded = true
	last.end()
	ps.remove(last)
	return true
}

// remove takes a wait out. The caller holds the lock.
func (ps *polls) remove(p *poll) {
	waiting := ps.account[p.account]
	for i, other := range waiting {
		if other != p {
			continue
		}
		ps.number--
		if waiting = append(waiting[:i:i], waiting[i+1:]...); len(waiting) > 0 {
			ps.account[p.account] = waiting
		} else {
			delete(ps.account, p.account)
		}
		break
	}
	if ps.name[p.name] == p {
		delete(ps.name, p.name)
	}
}

// leave ends a wait, and says whether a wake-up was not used.
func (ps *polls) leave(p *poll) (woken bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.remove(p)
	return len(p.woken) > 0
}

// wake lets one phone look for work: the account's first one that sleeps and can
// take work of the lane.
func (ps *polls) wake(a streams.AccountID, w wakeKey) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.account[a] {
		if !p.takes(w) {
			continue
		}
		select {
		case p.woken <- struct{}{}:
			return
		default:
		}
	}
}

// wakeLater lets the account's phones look again in a while, one for each of the
// lanes: another dispatcher has fetched the work there, and may put it back.
func (ps *polls) wakeLater(a streams.AccountID, lanes []streams.Lane) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.stopped || len(ps.account[a]) == 0 || len(lanes) == 0 {
		return
	}
	later := ps.later[a]
	if later == nil {
		later = &lookAgain{of: map[wakeKey]bool{}}
		later.timer = time.AfterFunc(lookAgainAfter, func() {
			ps.mu.Lock()
			delete(ps.later, a)
			ps.mu.Unlock()
			for w := range later.of {
				ps.wake(a, w)
			}
		})
		ps.later[a] = later
	}
	for _, l := range lanes {
		later.of[keyOf(l)] = true
	}
}

// any says whether a phone of any account waits.
func (ps *polls) any() bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.number > 0
}

// waits says whether a phone of the account waits.
func (ps *polls) waits(a streams.AccountID) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return len(ps.account[a]) > 0
}

// hangUp ends the wait of a name, if it is here.
func (ps *polls) hangUp(name string) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.name[name]; p != nil {
		p.end()
	}
}

// stop ends all waits, and those to come.
func (ps *polls) stop() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.stopped = true
	for _, later := range ps.later {
		later.timer.Stop()
	}
	for _, waiting := range ps.account {
		for _, p := range waiting {
			p.end()
		}
	}
}
