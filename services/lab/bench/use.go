package bench

import (
	"fmt"
	"runtime/metrics"
	"syscall"
	"time"
)

// use is what a process has used since it began, or from one time to another.
type use struct {
	CPU     time.Duration `json:"cpu"` // of the user's and the system's time
	Objects uint64        `json:"objects"`
	Bytes   uint64        `json:"bytes"`
}

// used gives what this process has used.
func used() (use, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return use{}, fmt.Errorf("read the time used: %w", err)
	}
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	return use{
		CPU:     time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		Objects: samples[0].Value.Uint64(),
		Bytes:   samples[1].Value.Uint64(),
	}, nil
}

func (u use) since(before use) use {
	return use{CPU: u.CPU - before.CPU, Objects: u.Objects - before.Objects, Bytes: u.Bytes - before.Bytes}
}

func (u use) plus(other use) use {
	return use{CPU: u.CPU + other.CPU, Objects: u.Objects + other.Objects, Bytes: u.Bytes + other.Bytes}
}
