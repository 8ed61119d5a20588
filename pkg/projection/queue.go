package projection

import "sync"

// item is an event on its way into the file, or without an event only caughtUp.
type item struct {
	Event
	reader   *reader
	at       cursor
	size     int
	caughtUp bool // once this is folded, so is all that the stream had when reading began
}

// queue has the events that were read and are not folded yet.
type queue struct {
	mu      sync.Mutex
	items   []item
	last    map[string]uint64 // by stream: the newest event that has come
	arrived chan struct{}     // has a token when there is something to fold
}

func newQueue() *queue {
	return &queue{last: map[string]uint64{}, arrived: make(chan struct{}, 1)}
}

func (q *queue) put(items []item) {
	if len(items) == 0 {
		return
	}
	q.mu.Lock()
	q.items = append(q.items, items...)
	if e := &items[len(items)-1]; e.Seq != 0 {
		q.last[e.Stream] = e.Seq
	}
	q.mu.Unlock()
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

// newest is the newest event of a stream that has come, 0 if none has.
func (q *queue) newest(stream string) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last[stream]
}

// take gives all that has arrived. It uses the memory of spare for what comes next,
// unless that has grown far too large in a burst.
func (q *queue) take(spare []item) []item {
	clear(spare)
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	if cap(spare) > 64 && cap(spare) > 8*len(items) {
		spare = nil
	}
	q.items = spare[:0]
	return items
}
