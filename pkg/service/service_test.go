package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/service"
)

// part is a service whose Run is the function.
type part struct {
	name string
	run  func(context.Context) error
}

func (p part) Name() string                  { return p.name }
func (p part) Run(ctx context.Context) error { return p.run(ctx) }

func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestRunStopsCleanly(t *testing.T) {
	tests := map[string]func(context.Context) error{
		"context error":         untilDone,
		"wrapped context error": func(ctx context.Context) error { return fmt.Errorf("pull: %w", untilDone(ctx)) },
		"nil":                   func(ctx context.Context) error { _ = untilDone(ctx); return nil },
	}
	for name, run := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if err := service.Run(ctx, part{"a", run}, part{"b", untilDone}); err != nil {
					t.Errorf("got %v, want nil", err)
				}
			})
		})
	}
}

func TestRunFirstFailureStopsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, stopped := time.Now(), false
		err := service.Run(t.Context(),
			part{"quota", func(context.Context) error {
				time.Sleep(time.Minute) // fake time
				return fmt.Errorf("fold: %w", io.ErrUnexpectedEOF)
			}},
			part{"dispatcher", func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second) // fake time: its own tidying up
				stopped = true
				return ctx.Err()
			}},
		)
		if got, want := fmt.Sprint(err), "quota: fold: unexpected EOF"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error("the cause is not in the chain")
		}
		if !stopped {
			t.Error("Run did not wait for the other service")
		}
		if got, want := time.Since(start), time.Minute+time.Second; got != want {
			t.Errorf("took %s, want %s", got, want)
		}
	})
}

func TestRunFailures(t *testing.T) {
	cancelled := func(ctx context.Context) error { // another context's cancel is no clean stop
		return fmt.Errorf("request: %w", context.Canceled)
	}
	tests := []struct {
		name string
		run  func(context.Context) error
		want string
	}{
		{"silent return", func(context.Context) error { return nil }, "a: returned although nobody stopped it"},
		{"another context's cancel", cancelled, "a: request: context canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := service.Run(t.Context(), part{"a", tt.run}, part{"b", untilDone})
			if got := fmt.Sprint(err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRunFailureWhileStopping(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := service.Run(ctx, part{"a", func(ctx context.Context) error {
		<-ctx.Done()
		return io.ErrShortWrite
	}})
	if got, want := fmt.Sprint(err), "a: short write"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
