package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/retry"
)

var errAway = errors.New("away")

// It tries for as long as it takes, with the same pause each time.
func TestDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tries = 3600
		begun := time.Now()
		n, told := 0, 0
		failed := func(err error) {
			told++
			if !errors.Is(err, errAway) {
				t.Errorf("failed with %v, want the try's error", err)
			}
		}
		err := retry.Do(t.Context(), time.Second, failed, func() error {
			if n++; n < tries {
				return errAway
			}
			return nil
		})
		if err != nil || n != tries || told != tries-1 || time.Since(begun) != (tries-1)*time.Second {
			t.Errorf("got %v after %d tries, %d failures and %v, want success after %d tries and %d s", err, n, told, time.Since(begun), tries, tries-1)
		}
	})
}

func TestDo_Stop(t *testing.T) {
	n := 0
	err := retry.Do(t.Context(), time.Hour, func(error) { t.Error("told of an error that is returned") }, func() error {
		n++
		return retry.Stop(errAway)
	})
	if err != errAway || n != 1 { //nolint:errorlint // the mark is gone
		t.Errorf("got %v after %d tries, want the error as it was after one", err, n)
	}
	if err := retry.Stop(nil); err != nil {
		t.Errorf("got %v of no error", err)
	}
}

// It ends with its context, in a pause or before, and says both why it ended and why the last try failed.
func TestDo_Context(t *testing.T) {
	for name, end := range map[string]time.Duration{"in a pause": 90 * time.Second, "before": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				if end == 0 {
					cancel(errors.New("a cause"))
				}
				defer time.AfterFunc(end, func() { cancel(errors.New("a cause")) }).Stop()
				begun, n, told := time.Now(), 0, 0
				err := retry.Do(ctx, time.Minute, func(error) { told++ }, func() error { n++; return errAway })
				if want := int(end/time.Minute) + 1; n != want || time.Since(begun) != end {
					t.Errorf("got %d tries in %v, want %d in %v", n, time.Since(begun), want, end)
				}
				if !errors.Is(err, context.Canceled) || !errors.Is(err, errAway) {
					t.Errorf("got %v, want the errors of the context and of the try", err)
				}
				if end == 0 && told != 0 {
					t.Error("told of a failure when nobody waits any more")
				}
			})
		})
	}
}

func TestDo_TellsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		err := retry.Do(t.Context(), time.Second, nil, func() error {
			if n++; n == 1 {
				return errAway
			}
			return nil
		})
		if err != nil || n != 2 {
			t.Errorf("got %v after %d tries, want success after two", err, n)
		}
	})
}
