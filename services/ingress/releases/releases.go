// Package releases keeps the releases of the gateway app ready to be downloaded.
// It asks the version service for them and counts downloads. The object store
// gives a file only whole and from its beginning, so the files are copied to disk:
// then a download can resume anywhere.
package releases

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/object"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Options are what Releases are made of.
type Options struct {
	Bus     *bus.Bus
	Dir     string       // where files are copied to; it is this one's alone to write
	Room    func() error // why nothing should be stored now, as bus.ErrNotStored; nil: it always may
	Log     *zap.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time
}

// Releases are the releases that can be downloaded.
type Releases struct {
	bus   *bus.Bus
	store *object.Store
	dir   string
	room  func() error
	log   *zap.Logger
	now   func() time.Time

	mu      sync.Mutex
	running context.Context // nil while Run does not
	copies  map[string]*copied
	copying sync.WaitGroup
	turn    chan struct{} // holds one token: files are copied one after another

	counts  counts
	counted prometheus.Counter
}

// Faults of releases.
var (
	errUnavailable = fault.New(fault.Unavailable, "versions_unavailable", "App versions cannot be looked up now, try again")
	errDamaged     = fault.New(fault.Internal, "version_damaged", "The file of this version is damaged")
	errNotCopied   = fault.New(fault.Unavailable, "version_unavailable", "The file of this version cannot be read now, try again")
)

const (
	// listWithin is how long the version service may take.
	listWithin = 2 * time.Second
	retryAfter = 5 * time.Second
)

// New makes releases that can be downloaded while Run runs.
func New(o Options) *Releases {
	if o.Room == nil {
		o.Room = func() error { return nil }
	}
	return &Releases{
		bus:    o.Bus,
		store:  object.Open(o.Bus, streams.ApksBucket),
		dir:    o.Dir,
		room:   o.Room,
		log:    o.Log,
		now:    o.Now,
		copies: map[string]*copied{},
		turn:   make(chan struct{}, 1),
		counts: counts{pending: map[streams.VersionCode]int64{}, more: make(chan struct{}, 1)},
		counted: promauto.With(o.Metrics).NewCounter(prometheus.CounterOpts{
			Namespace: "trunkline", Subsystem: "ingress", Name: "downloads_total", Help: "Releases of the app downloaded whole.",
		}),
	}
}

// Run copies files and stores the counts of downloads until ctx is done.
func (r *Releases) Run(ctx context.Context) error {
	r.mu.Lock()
	r.running = ctx
	r.mu.Unlock()
	r.storeCounts(ctx)
	r.mu.Lock()
	r.running = nil
	r.mu.Unlock()
	r.copying.Wait()
	return nil
}

// All lists the releases that were not withdrawn, the highest code first.
func (r *Releases) All(ctx context.Context) ([]request.AppVersion, error) {
	ctx, cancel := context.WithTimeout(ctx, listWithin)
	defer cancel()
	listed, err := bus.Call[request.VersionsListed](ctx, r.bus, request.VersionList, request.Versions{})
	if err != nil {
		return nil, later(errUnavailable, err)
	}
	var all []request.AppVersion
	for _, v := range listed.Versions {
		if !v.Withdrawn {
			all = append(all, v)
		}
	}
	return all, nil
}

func later(f *fault.Error, cause error) error {
	f = f.With(cause)
	f.RetryAfter = retryAfter
	return f
}

// Open gives a release's file. Its bytes were compared with its digest when it was
// copied; the first caller waits for that.
func (r *Releases) Open(ctx context.Context, v request.AppVersion) (*os.File, error) {
	for again := false; ; again = true {
		c, err := r.copyOf(v)
		if err != nil {
			return nil, err
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return nil, later(errNotCopied, ctx.Err())
		}
		if c.err != nil {
			return nil, c.err
		}
		file, err := os.Open(r.path(v))
		if err == nil {
			return file, nil
		}
		r.forget(v, c)
		if again || !errors.Is(err, os.ErrNotExist) {
			return nil, later(errNotCopied, err)
		}
		// The file was removed: it is copied again.
	}
}

func (r *Releases) path(v request.AppVersion) string {
	return filepath.Join(r.dir, v.SHA256+suffix)
}

// Downloaded counts a download of a release.
func (r *Releases) Downloaded(code streams.VersionCode) {
	r.counted.Inc()
	r.counts.add(code)
}

// publish stores one message of the stream. The same one may be stored again.
func (r *Releases) publish(ctx context.Context, msg *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, listWithin)
	defer cancel()
	_, err := r.bus.JS.PublishMsg(ctx, msg)
	return err
}
