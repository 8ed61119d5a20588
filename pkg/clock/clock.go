// Package clock tells the time, and waits for it to pass.
package clock

import (
	"context"
	"time"
)

// Sleep waits for d, or until ctx is done: the error is then that of ctx. It
// does not wait at all if ctx is done or d is not positive.
func Sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
