// Package keylock locks one key at a time, and waits for a lock no longer than a context lasts.
package keylock

import (
	"context"
	"sync"
)

// Locks has one lock for each key, which exists only while somebody holds it or
// waits for it. The zero value is ready.
type Locks[K comparable] struct {
	mu   sync.Mutex
	open map[K]*lock
}

type lock struct {
	free  chan struct{} // has a token while nobody holds the lock
	users int           // those who hold it or wait for it
}

// Users counts those who hold the key's lock or wait for it.
func (l *Locks[K]) Users(key K) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if own := l.open[key]; own != nil {
		return own.users
	}
	return 0
}

// Lock waits until the key's lock is free and takes it. The caller calls unlock
// once. It fails only with ctx.
func (l *Locks[K]) Lock(ctx context.Context, key K) (unlock func(), err error) {
	l.mu.Lock()
	if l.open == nil {
		l.open = map[K]*lock{}
	}
	own := l.open[key]
	if own == nil {
		own = &lock{free: make(chan struct{}, 1)}
		own.free <- struct{}{}
		l.open[key] = own
	}
	own.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if own.users--; own.users == 0 {
			delete(l.open, key)
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
