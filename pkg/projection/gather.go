package projection

import (
	"context"
	"time"
)

// gatherFor is the least time between two commits to the live file, see gather.
const gatherFor = 10 * time.Millisecond

// gather waits for more events if the last commit was a moment ago: a commit of one
// event costs about as much as one of fifty. It does not wait if the last commit was
// longer ago, or if somebody waits for an event that has come.
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

// awaited reports whether somebody waits for an event that has arrived.
func (f *File) awaited(q *queue) bool {
	for stream, p := range f.positions {
		if p.awaits(q.newest(stream)) {
			return true
		}
	}
	return false
}
