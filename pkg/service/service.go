// Package service runs the parts of the system, alone or together in one process.
package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
)

// Service is one part of the system. Run blocks until ctx is done or the part fails, and returns only when
// everything it started has returned.
type Service interface {
	Name() string
	Run(ctx context.Context) error
}

// Deps is what every service is made of. Only the bus's connection differs between one process and many.
type Deps struct {
	Bus     *bus.Bus
	Dir     string // where projections live
	Log     *zap.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time
	Clock   *clock.Clock // what Now is of; nil: Now is never doubted
}

// Sure is a time that has surely come, by which that goes which cannot be taken back.
func (d Deps) Sure() time.Time {
	if d.Clock == nil {
		return d.Now()
	}
	return d.Clock.Sure()
}

// Since is when Now began, or stepped last; the zero time if it never does.
func (d Deps) Since() time.Time {
	if d.Clock == nil {
		return time.Time{}
	}
	return d.Clock.Since()
}

var errReturned = errors.New("returned although nobody stopped it")

// Run runs the services until ctx is done or one of them fails, which stops the others. It waits for all of them
// and returns the first failure, prefixed with the service's name; a clean cancel is nil. A service that returns
// nil while ctx is not done has failed: a part that is silently gone is worse than a restart.
func Run(ctx context.Context, s ...Service) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, one := range s {
		g.Go(func() error {
			err := one.Run(ctx)
			switch {
			case ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())):
				return nil
			case err == nil:
				err = errReturned
			}
			return fmt.Errorf("%s: %w", one.Name(), err)
		})
	}
	return g.Wait()
}

// RunInOrder is Run for two groups, of which back ends only after front has returned: front needs its answers until
// then. A failure in either ends both.
func RunInOrder(ctx context.Context, front, back []Service) error {
	if len(back) == 0 {
		return Run(ctx, front...)
	}
	frontCtx, stopFront := context.WithCancel(ctx)
	defer stopFront()
	backCtx, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	var g errgroup.Group
	g.Go(func() error {
		defer stopBack()
		return Run(frontCtx, front...)
	})
	g.Go(func() error {
		defer stopFront()
		return Run(backCtx, back...)
	})
	return g.Wait()
}
