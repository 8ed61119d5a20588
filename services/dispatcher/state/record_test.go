package state

import (
	"testing"

	"github.com/trunkline-sms/trunkline/streams"
)

// A record remembers where it began and what came last, within a bound.
func TestRecord_Steps(t *testing.T) {
	var r record
	seq := uint64(0)
	add := func(states ...streams.State) {
		for _, state := range states {
			seq++
			r.remember(step{seq: seq, state: state})
		}
	}
	add(streams.Leased)
	for range 1000 { // held, and handed out again
		add(streams.Leased, streams.Leased)
	}
	if len(r.steps) != 2 || r.steps[0].seq != 1 || r.steps[1].seq != seq || !r.changedBy(seq) {
		t.Errorf("got %d steps, the last %v", len(r.steps), r.steps[len(r.steps)-1])
	}
	for range 1000 { // cancelled and requeued, by somebody's program
		add(streams.Pending, streams.Cancelled)
	}
	add(streams.Leased, streams.Delivered)
	if len(r.steps) != maxSteps || r.steps[0].seq != 1 || !r.changedBy(seq) || r.steps[maxSteps-1].state != streams.Delivered {
		t.Errorf("got %d steps from %v", len(r.steps), r.steps[0])
	}
	for i := 2; i < maxSteps; i++ {
		if r.steps[i].seq != r.steps[i-1].seq+1 {
			t.Fatalf("step %d is followed by %d", r.steps[i-1].seq, r.steps[i].seq)
		}
	}
	if len(r.encode()) > 16*maxSteps {
		t.Errorf("it takes %d bytes", len(r.encode()))
	}
}
