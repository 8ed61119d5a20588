package service

import (
	"context"
	"runtime/debug"
	"testing"
)

func TestMemoryLimit(t *testing.T) {
	for live, want := range map[uint64]int64{
		0: leastMemory, 100 << 20: leastMemory, 160 << 20: leastMemory, 200 << 20: 360 << 20, 320 << 20: 480 << 20, 4 << 30: 6 << 30,
	} {
		if got := memoryLimit(live); got != want {
			t.Errorf("%d bytes in use: got a limit of %d, want %d", live, got, want)
		}
	}
}

// The limit is one while it is kept, and none afterwards; an operator's own is left alone.
func TestBoundMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	for _, own := range []string{"", "1GiB"} {
		t.Setenv("GOMEMLIMIT", own)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); BoundMemory(ctx) }()
		if own == "" {
			for debug.SetMemoryLimit(-1) == before && ctx.Err() == nil {
				select {
				case <-done:
					t.Fatal("it ended although nobody stopped it")
				default:
				}
			}
		} else {
			<-done
		}
		stop()
		<-done
		if got := debug.SetMemoryLimit(-1); got != before {
			t.Errorf("GOMEMLIMIT=%q: afterwards the limit is %d, want %d", own, got, before)
		}
	}
}
