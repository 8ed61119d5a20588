package projection

import (
	"context"
	"time"
)

// gatherFor is how closely commits to the live file follow each other.
const gatherFor = 10 * time.Millisecond

// gather lets more events arrive when the last commit was a moment ago: one of
// a single event costs about as much as one of fifty. After a pause it does
// not, and never for an event that somebody waits for.
func (f *File) gather(ctx context.Context, q *queue, committed time.Time) {
	rest := gatherFor - time.Since(committed)
	if rest <= 0 || f.awaited(q) {
		return
	}
	over := time.NewTimer(rest)
	defer over.Stop()
	for {
		select {
		case <-over.C:
			return
		case <-ctx.Done():
			return
		case <-q.arrived:
			if f.awaited(q) {
				return
			}
		}
	}
}

// awaited says whether somebody waits for an event that has arrived.
func (f *File) awaited(q *queue) bool {
	for stream, p := range f.positions {
		if p.awaits(q.newest(stream)) {
			return true
		}
	}
	return false
}
