package projection

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// position is how far a stream is applied, and the waiters for later events.
type position struct {
	applied atomic.Uint64

	mu      sync.Mutex
	waiters []waiter        // in the order of seq
	began   chan<- struct{} // gets a token when somebody begins to wait
}

type waiter struct {
	seq  uint64
	done chan struct{}
}

// advance notes that all events up to seq are applied, and wakes their waiters.
func (p *position) advance(seq uint64) {
	if p.applied.Load() == seq {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.applied.Store(seq)
	n := 0
	for n < len(p.waiters) && p.waiters[n].seq <= seq {
		close(p.waiters[n].done)
		n++
	}
	p.waiters = slices.Delete(p.waiters, 0, n)
}

// reset notes that nothing is applied any more. Waiters go on waiting.
func (p *position) reset() { p.applied.Store(0) }

// await gives a waiter for seq. Its channel is nil if seq is applied already.
func (p *position) await(seq uint64) waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.applied.Load() >= seq {
		return waiter{}
	}
	w := waiter{seq: seq, done: make(chan struct{})}
	at, _ := slices.BinarySearchFunc(p.waiters, seq+1, compareWaiter)
	p.waiters = slices.Insert(p.waiters, at, w)
	select {
	case p.began <- struct{}{}:
	default:
	}
	return w
}

// wakes sets the channel that gets a token when somebody begins to wait.
func (p *position) wakes(began chan<- struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = began
}

// awaits reports whether somebody waits for an event at or before seq.
func (p *position) awaits(seq uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiters) > 0 && p.waiters[0].seq <= seq
}

// forget drops a waiter that has given up.
func (p *position) forget(w waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, _ := slices.BinarySearchFunc(p.waiters, w.seq, compareWaiter)
	for ; at < len(p.waiters) && p.waiters[at].seq == w.seq; at++ {
		if p.waiters[at].done == w.done {
			p.waiters = slices.Delete(p.waiters, at, at+1)
			return
		}
	}
}

func compareWaiter(w waiter, seq uint64) int {
	switch {
	case w.seq < seq:
		return -1
	case w.seq > seq:
		return 1
	}
	return 0
}

// Wait returns when the event seq of stream, and all before it, are applied: View shows
// them then, and Committed has had them. seq must be at or before the last event that
// the sources match, otherwise Wait waits for the next one that they match. It fails
// when ctx or Run ends first, and with the fault Unwritten while the file cannot be
// written. Never call it inside View.
func (f *File) Wait(ctx context.Context, stream string, seq uint64) error {
	p := f.positions[stream]
	if p == nil {
		return fmt.Errorf("wait for %s %d: the projection does not read that stream", stream, seq)
	}
	if p.applied.Load() >= seq {
		return nil
	}
	w := p.await(seq)
	if w.done == nil {
		return nil
	}
	f.mu.Lock()
	trouble := f.trouble.since
	f.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		p.forget(w)
		return fmt.Errorf("wait for %s %d: %w", stream, seq, ctx.Err())
	case <-trouble:
		p.forget(w)
		if err := f.Err(); err != nil && p.applied.Load() < seq {
			return fmt.Errorf("wait for %s %d: %w", stream, seq, err)
		}
		return f.Wait(ctx, stream, seq) // the file can be written again
	case <-f.ended:
		p.forget(w)
		if p.applied.Load() >= seq {
			return nil
		}
		return fmt.Errorf("wait for %s %d: %w", stream, seq, f.endError())
	}
}

// Cursor is the sequence of the last event of stream that is applied, 0 if there is
// none.
func (f *File) Cursor(stream string) uint64 {
	p := f.positions[stream]
	if p == nil {
		return 0
	}
	return p.applied.Load()
}

// Ready returns when everything is applied that the streams had when Run began, or
// when Run last began to rebuild the file. It fails when ctx or Run ends first.
func (f *File) Ready(ctx context.Context) error {
	f.mu.Lock()
	ready := f.ready
	f.mu.Unlock()
	select {
	case <-ready:
		return nil
	default:
	}
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait until caught up: %w", ctx.Err())
	case <-f.ended:
		return fmt.Errorf("wait until caught up: %w", f.endError())
	}
}

// caughtUp notes that one more stream has caught up.
func (f *File) caughtUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.behind--; f.behind == 0 {
		close(f.ready)
	}
}

// unready begins the count again. Those who wait in Ready already go on waiting.
func (f *File) unready() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.behind == 0 {
		f.ready = make(chan struct{})
	}
	f.behind = len(f.sources)
}

func (f *File) endError() error {
	if f.runErr != nil {
		return fmt.Errorf("%w: %w", errEnded, f.runErr)
	}
	return errEnded
}

func (f *File) setReaders(readers []*reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follow = readers
}

// Lag counts, by stream, the events that match the sources and are not applied yet. It
// asks the server. It fails while Run does not read the streams.
func (f *File) Lag(ctx context.Context) (map[string]uint64, error) {
	f.mu.Lock()
	readers := f.follow
	f.mu.Unlock()
	if readers == nil {
		return nil, fmt.Errorf("read lag: %w", errEnded)
	}
	lag := make(map[string]uint64, len(readers))
	for _, r := range readers {
		n, err := r.lag(ctx)
		if err != nil {
			return nil, err
		}
		lag[r.source.Stream] = n
	}
	return lag, nil
}
