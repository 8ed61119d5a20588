// Package retry tries something again until it succeeds.
//
// It is for what fails while something else is away, and can only be tried again. Where the next step depends on how a try
// ended, as in a group commit, a decision or a claim's renewal, the loop stands beside its rules.
package retry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Do calls try until it succeeds. After a try that failed it calls failed with the error, unless failed is nil, and waits for
// the pause. It returns the error of a try that was marked with Stop, without the mark; and when ctx is done, an error that is
// both that of ctx and that of the last try. Even if ctx is done before, there is one try.
func Do(ctx context.Context, pause time.Duration, failed func(error), try func() error) error {
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		last = try()
		return struct{}{}, last
	},
		backoff.WithBackOff(backoff.NewConstantBackOff(pause)),
		backoff.WithMaxElapsedTime(0), // else it gives up after 15 minutes
		backoff.WithNotify(func(err error, _ time.Duration) {
			if failed != nil {
				failed(err)
			}
		}),
	)
	var stop *backoff.PermanentError
	if err == nil || errors.As(last, &stop) {
		return err
	}
	return fmt.Errorf("%w: %w", ctx.Err(), last) // the library returns the cause of ctx alone
}

// Stop marks the error of a try that no other may follow. It is nil if err is.
func Stop(err error) error { return backoff.Permanent(err) }
