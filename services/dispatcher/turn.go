package dispatcher

import (
	"context"
	"sync"

	"github.com/trunkline-sms/trunkline/streams"
)

// turns lets decisions about one account follow each other, so that within a
// process they never fail at the fence.
type turns struct {
	mu   sync.Mutex
	open map[streams.AccountID]*turn
}

type turn struct {
	free  chan struct{} // has a token while nobody has the turn
	users int           // who has it or waits for it
}

// take waits for the account's turn. The caller gives it back.
func (t *turns) take(ctx context.Context, a streams.AccountID) (giveBack func(), err error) {
	t.mu.Lock()
	if t.open == nil {
		t.open = map[streams.AccountID]*turn{}
	}
	own := t.open[a]
	if own == nil {
		own = &turn{free: make(chan struct{}, 1)}
		own.free <- struct{}{}
		t.open[a] = own
	}
	own.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(t.open, a)
		}
	}
	select {
	case <-own.free:
		return func() { own.free <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
