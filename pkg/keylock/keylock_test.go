package keylock

import (
	"context"
	"sync"
	"testing"
)

func TestHoldersOfAKeyFollowEachOther(t *testing.T) {
	var locks Locks[string]
	var own [2]int // written only by the holder of the key's lock
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			key := []string{"a", "b"}[i%2]
			unlock, err := locks.Lock(t.Context(), key)
			if err != nil {
				t.Error(err)
				return
			}
			own[i%2]++
			unlock()
		})
	}
	all.Wait()
	if own != [2]int{20, 20} || len(locks.open) != 0 {
		t.Errorf("locks were held %v times and %d are left, want 20 each and none", own, len(locks.open))
	}
}

func TestOneThatStopsWaitingLeavesNothing(t *testing.T) {
	var locks Locks[int]
	unlock, err := locks.Lock(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := locks.Lock(ctx, 1); err == nil {
		t.Error("two hold the lock of one key")
	}
	unlock()
	if len(locks.open) != 0 {
		t.Errorf("%d keys are left", len(locks.open))
	}
}
