// Package version keeps the releases of the gateway app: which ones there are, which
// one is active, so that apps install it, and how often each was downloaded.
package version

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/object"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/streams"
)

// Projection names the service's projection in requests about it.
const Projection = "version"

// Deps is what the service is made of.
type Deps struct {
	service.Deps
	// Room says why so many bytes may not be stored now, as bus.ErrNotStored;
	// if it is nil, they always may.
	Room func(bytes int64) error
}

// Version is one instance of the service. Any number may run: each decision is
// stored only if the one before it is the last.
type Version struct {
	bus   *bus.Bus
	path  string
	log   *zap.Logger
	now   func() time.Time
	room  func(bytes int64) error
	lag   prometheus.Gauge
	store *object.Store

	deciding sync.Mutex // an instance makes one decision at a time

	file    *projection.File // set by Run
	opened  chan struct{}    // closed when it is
	serving chan struct{}    // closed when requests are answered
}

// New makes an instance that does nothing until Run.
func New(d Deps) *Version {
	if d.Room == nil {
		d.Room = func(int64) error { return nil }
	}
	return &Version{
		bus:     d.Bus,
		path:    filepath.Join(d.Dir, Projection+".db"),
		log:     d.Log.Named("version"),
		now:     d.Now,
		room:    d.Room,
		store:   object.Open(d.Bus, streams.ApksBucket),
		opened:  make(chan struct{}),
		serving: make(chan struct{}),
		lag: promauto.With(d.Metrics).NewGauge(prometheus.GaugeOpts{
			Name: "trunkline_version_lag_events",
			Help: "Events stored and not folded yet.",
		}),
	}
}

// Name is version.
func (*Version) Name() string { return "version" }

// Ready returns once everything is folded that was stored when Run began, and
// requests are answered.
func (v *Version) Ready(ctx context.Context) error {
	select {
	case <-v.opened:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := v.file.Err(); err != nil {
		return err
	}
	select {
	case <-v.serving:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run folds and answers. The stream and the object store must be there. The end
// of ctx is no error.
func (v *Version) Run(ctx context.Context) error {
	err := v.run(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	if v.file != nil {
		err = errors.Join(err, v.file.Close())
	}
	return err
}

func (v *Version) run(ctx context.Context) error {
	var err error
	v.file, err = projection.Open(v.path, v.bus, fold{}, projection.Options{Render: render, Log: v.log})
	if err != nil {
		return fmt.Errorf("open projection %s: %w", Projection, err)
	}
	close(v.opened)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return v.file.Run(ctx) })
	g.Go(func() error { return v.serveProjection(ctx) })
	g.Go(func() error {
		// One that is still folding would not know of releases.
		if err := v.file.Ready(ctx); err != nil {
			return err
		}
		return v.serve(ctx)
	})
	g.Go(func() error { return v.every(ctx, lagEvery, v.measureLag) })
	g.Go(func() error { return v.every(ctx, sweepEvery, v.sweep) })
	return g.Wait()
}

// every does something at once, and then again and again, until ctx is done.
func (v *Version) every(ctx context.Context, pause time.Duration, do func(context.Context)) error {
	again := time.NewTicker(pause)
	defer again.Stop()
	for {
		do(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

const lagEvery = 10 * time.Second

func (v *Version) measureLag(ctx context.Context) {
	lag, err := v.file.Lag(ctx)
	if err == nil { // otherwise the projection logs what is wrong
		v.lag.Set(float64(lag[streams.ReleaseStream]))
	}
}

const (
	sweepEvery = time.Hour
	// unfinished is how long an upload may rest, or wait for its release, before
	// it counts as abandoned: by a command that was killed.
	//
	// Limit: a file that was uploaded and not published stays for 1 h. Beyond it: it is removed.
	// Used up by: the operator. Hurts: nobody else. Test: TestSweep.
	unfinished = time.Hour
	// publishWithin is how soon after its upload a file must be published. It is
	// less than unfinished, so that no sweep removes a release's file.
	//
	// Limit: a file must be published within 30 min of its upload. Beyond it: it is rejected: upload it again.
	// Used up by: the operator. Hurts: nobody else. Test: TestPublish_TooLate.
	publishWithin = unfinished / 2
)

// sweep removes files that belong to no release.
func (v *Version) sweep(ctx context.Context) {
	book, err := v.current(ctx)
	if err != nil {
		return
	}
	kept := map[string]bool{}
	for _, one := range book.versions {
		kept[one.Object] = !one.Withdrawn
	}
	removed, err := v.store.Sweep(ctx, v.now().Add(-unfinished), func(name string) bool { return kept[name] })
	if removed > 0 {
		v.log.Info("files of no release removed", zap.Int("files", removed))
	}
	if err != nil && ctx.Err() == nil {
		v.log.Warn("files of no release not removed", zap.Error(err))
	}
}
