// Package turn lets those who work on the same thing follow each other.
package turn

import (
	"context"
	"sync"
)

// Turns gives out one turn at a time for each key. The zero value is ready.
type Turns[K comparable] struct {
	mu   sync.Mutex
	open map[K]*turn
}

type turn struct {
	free  chan struct{} // has a token while nobody has the turn
	users int           // who has it or waits for it
}

// Users counts who has the key's turn or waits for it.
func (t *Turns[K]) Users(key K) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own := t.open[key]; own != nil {
		return own.users
	}
	return 0
}

// Take waits for the key's turn, which the caller gives back. It fails only
// with ctx.
func (t *Turns[K]) Take(ctx context.Context, key K) (giveBack func(), err error) {
	t.mu.Lock()
	if t.open == nil {
		t.open = map[K]*turn{}
	}
	own := t.open[key]
	if own == nil {
		own = &turn{free: make(chan struct{}, 1)}
		own.free <- struct{}{}
		t.open[key] = own
	}
	own.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(t.open, key)
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
