package dispatcher

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Phones that wait have a bound for an account, and one for all, where the account that has most gives way.
func TestPolls_Bounds(t *testing.T) {
	var ps polls
	const greedy = streams.AccountID(1)
	for range maxWaiting {
		if ps.join(request.Pull{Account: greedy}) == nil {
			t.Fatal("refused below the bound")
		}
	}
	if ps.join(request.Pull{Account: greedy}) != nil {
		t.Error("one more of an account may wait")
	}
	var last *poll
	for a := greedy + 1; ps.number < maxAllWaiting; a++ {
		for range maxWaiting - 1 {
			if ps.number < maxAllWaiting {
				last = ps.join(request.Pull{Account: a})
			}
		}
	}
	most := ps.account[greedy][maxWaiting-1]
	modest := ps.join(request.Pull{Account: 1000})
	if modest == nil || ps.number != maxAllWaiting || len(ps.account[greedy]) != maxWaiting-1 || !most.crowded {
		t.Errorf("an account without any: %v, %d wait, %d of the greedy one", modest, ps.number, len(ps.account[greedy]))
	}
	<-most.ended
	for range 2 * maxWaiting { // it gets as many as the others have
		if p := ps.join(request.Pull{Account: 1000}); p != nil {
			modest = p
		}
	}
	if got := len(ps.account[1000]); got < maxWaiting/2 || got > maxWaiting {
		t.Errorf("it has %d, want its share", got)
	}
	for _, p := range []*poll{most, last, modest} {
		ps.leave(p)
	}
	if got := len(ps.account[greedy]); got == 0 || ps.number > maxAllWaiting {
		t.Errorf("%d of the greedy one wait, %d in all", got, ps.number)
	}
}

// A wake-up that is not used is told, so that it is passed on; who sleeps already does not get a second one.
func TestPolls_Wake(t *testing.T) {
	var ps polls
	first, second := ps.join(request.Pull{Account: 1}), ps.join(request.Pull{Account: 1, Device: 7})
	ps.wake(1, wakeKey{})
	ps.wake(1, wakeKey{target: 7})
	ps.wake(1, wakeKey{target: 8})
	ps.wake(1, wakeKey{class: streams.Other})
	if len(first.woken) != 1 || len(second.woken) != 1 {
		t.Fatalf("woken %d, %d", len(first.woken), len(second.woken))
	}
	<-second.woken
	if !ps.leave(first) || ps.leave(second) || ps.any() || ps.waits(1) {
		t.Errorf("%d wait", ps.number)
	}
}

// Pulls of an account follow each other. So many wait for that, and who comes then is told at once, or waits elsewhere.
func TestPullsThatLockAreBounded(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	s := &puller{decisions: &decider{}}
	unlock, err := s.lock(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range maxLocking - 1 {
		all.Go(func() {
			if next, err := s.lock(ctx, 1); err == nil {
				next()
			}
		})
	}
	for s.decisions.locks.Users(1) < maxLocking {
		runtime.Gosched()
	}
	_, err = s.lock(ctx, 1)
	if f := fault.As(err); f.Kind != fault.RateLimited || f.Code != "too_many_pulls" || f.RetryAfter == 0 {
		t.Errorf("got %v", err)
	}
	if page, err := crowded(request.Pulled{}, err); err != nil || !page.Crowded {
		t.Errorf("who would wait: got %v, %v", page, err)
	}
	if next, err := s.lock(ctx, 2); err != nil {
		t.Errorf("another account: %v", err)
	} else {
		next()
	}
	leave()
	all.Wait()
	unlock()
	if got := s.decisions.locks.Users(1); got != 0 {
		t.Errorf("%d are left", got)
	}
}
