package turn

import (
	"context"
	"sync"
	"testing"
)

func TestTurnsOfAKeyFollowEachOther(t *testing.T) {
	var turns Turns[string]
	var own [2]int // written only by who has the turn
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			key := []string{"a", "b"}[i%2]
			giveBack, err := turns.Take(t.Context(), key)
			if err != nil {
				t.Error(err)
				return
			}
			own[i%2]++
			giveBack()
		})
	}
	all.Wait()
	if own != [2]int{20, 20} || len(turns.open) != 0 {
		t.Errorf("got %v turns and %d left open, want 20 each and none", own, len(turns.open))
	}
}

func TestWhoStopsWaitingLeavesNothing(t *testing.T) {
	var turns Turns[int]
	giveBack, err := turns.Take(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := turns.Take(ctx, 1); err == nil {
		t.Error("a turn was given twice")
	}
	giveBack()
	if len(turns.open) != 0 {
		t.Errorf("%d keys are left", len(turns.open))
	}
}
