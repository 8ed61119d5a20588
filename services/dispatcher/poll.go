package dispatcher

import (
	"sync"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// lookAgainAfter is when a phone that waits looks for what others hold.
const lookAgainAfter = time.Second

// polls are the phones that wait for work. Work wakes one of an account's, and
// who leaves work behind wakes the next: a crowd of phones costs no more than
// the messages there are.
type polls struct {
	mu      sync.Mutex
	account map[streams.AccountID][]*poll // first come, first served
	name    map[string]*poll
	later   map[streams.AccountID]*time.Timer
	stopped bool
}

type poll struct {
	account streams.AccountID
	name    string
	woken   chan struct{} // has a token when there may be work
	ended   chan struct{} // closed when the phone hung up or the dispatcher stops
	once    sync.Once
}

func (p *poll) end() { p.once.Do(func() { close(p.ended) }) }

// join starts a wait; the caller leaves.
func (ps *polls) join(a streams.AccountID, name string) *poll {
	p := &poll{account: a, name: name, woken: make(chan struct{}, 1), ended: make(chan struct{})}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.account == nil {
		ps.account, ps.name = map[streams.AccountID][]*poll{}, map[string]*poll{}
		ps.later = map[streams.AccountID]*time.Timer{}
	}
	ps.account[a] = append(ps.account[a], p)
	if name != "" {
		ps.name[name] = p
	}
	if ps.stopped {
		p.end()
	}
	return p
}

// leave ends a wait, and passes on a wake-up that it did not use.
func (ps *polls) leave(p *poll) {
	ps.mu.Lock()
	waiting := ps.account[p.account]
	for i, other := range waiting {
		if other == p {
			waiting = append(waiting[:i:i], waiting[i+1:]...)
			break
		}
	}
	if len(waiting) == 0 {
		delete(ps.account, p.account)
	} else {
		ps.account[p.account] = waiting
	}
	delete(ps.name, p.name)
	ps.mu.Unlock()
	select {
	case <-p.woken:
		ps.wake(p.account)
	default:
	}
}

// wake lets the account's first phone that sleeps look for work.
func (ps *polls) wake(a streams.AccountID) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.account[a] {
		select {
		case p.woken <- struct{}{}:
			return
		default:
		}
	}
}

// wakeLater lets one of the account's phones look again in a while, for work
// that somebody else holds and may give back.
func (ps *polls) wakeLater(a streams.AccountID) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.stopped || ps.later[a] != nil || len(ps.account[a]) == 0 {
		return
	}
	ps.later[a] = time.AfterFunc(lookAgainAfter, func() {
		ps.mu.Lock()
		delete(ps.later, a)
		ps.mu.Unlock()
		ps.wake(a)
	})
}

// any says whether a phone waits at all.
func (ps *polls) any() bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return len(ps.account) > 0
}

// hangUp ends the wait of that name.
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
	for _, t := range ps.later {
		t.Stop()
	}
	for _, waiting := range ps.account {
		for _, p := range waiting {
			p.end()
		}
	}
}
