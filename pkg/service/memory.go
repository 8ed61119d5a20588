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
	// spareMemory is that beside twice what is in use.
	spareMemory = 64 << 20
	// lookAtMemory is how often it is looked at.
	lookAtMemory = 5 * time.Second
)

// BoundMemory keeps what the Go runtime takes close to twice what is in use, until ctx is done: while a machine is very
// busy the collector falls behind, and memory would grow by what nobody uses any more. It never makes the collector work
// more than that. An operator who sets GOMEMLIMIT decides alone, and then it does nothing.
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
	return int64(min(max(2*used+spareMemory, leastMemory), math.MaxInt64))
}
