package service

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
)

const (
	// leastMemory is what the Go runtime may always take before it collects more often than it would by itself.
	leastMemory = 320 << 20
	// spareMemory is that beside what is in use, unless half of what is in use is more.
	spareMemory = 160 << 20
	// lookAtMemory is how often it is looked at.
	lookAtMemory = 5 * time.Second
)

// BoundMemory keeps what the Go runtime takes within half more than what is in use, or 160 MiB more, until ctx is done:
// left to itself it takes twice that, and while a machine is very busy the collector falls behind, and memory grows by what
// nobody uses any more. The collector works at most twice as much for it. An operator who sets GOMEMLIMIT decides alone, and then it does nothing.
func BoundMemory(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	used := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	for {
		metrics.Read(used)
		debug.SetMemoryLimit(memoryLimit(used[0].Value.Uint64() + used[1].Value.Uint64()))
		if clock.Sleep(ctx, lookAtMemory) != nil {
			return
		}
	}
}

// memoryLimit is what the runtime may take while so many bytes of heap and stacks are in use.
func memoryLimit(used uint64) int64 {
	return int64(min(max(used+max(used/2, spareMemory), leastMemory), math.MaxInt64))
}
