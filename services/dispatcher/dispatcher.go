// Package dispatcher hands messages out to phones under leases, decides what
// becomes of leases that run out, and answers where every message stands. What it
// knows is in package state, which is folded from ENQUEUE and STATUS; what it does
// follows from that. Any number of dispatchers may run over the same streams: each
// decision is stored on condition that nobody has decided about the account since.
package dispatcher

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

// Dispatcher is the service.
type Dispatcher struct {
	cfg     Config
	deps    Deps
	metrics *metrics

	opened  chan struct{} // closed when Run has opened the shards
	servers []*server
}

// New makes a dispatcher over the shards that its settings name. It does nothing before Run.
func New(cfg Config, d Deps) *Dispatcher {
	return &Dispatcher{cfg: cfg, deps: d, metrics: newMetrics(d.Metrics), opened: make(chan struct{})}
}

// Name is "dispatcher".
func (d *Dispatcher) Name() string { return "dispatcher" }

// Ready returns when everything is folded that was stored at the start. It
// fails with ctx, and while nothing can be folded.
func (d *Dispatcher) Ready(ctx context.Context) error {
	select {
	case <-d.opened:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, s := range d.servers {
		if err := s.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Run folds and serves until ctx is done.
func (d *Dispatcher) Run(ctx context.Context) error {
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.close()
		}
	}()
	var endpoints []bus.Endpoint
	numbers, err := d.cfg.serves(d.deps.Shards)
	if err != nil {
		return err
	}
	for _, number := range numbers {
		s, err := openServer(d, number)
		if err != nil {
			return err
		}
		servers = append(servers, s)
		endpoints = append(endpoints, s.endpoints()...)
		endpoints = append(endpoints, s.file.Endpoints(s.name())...)
	}
	d.servers = servers
	close(d.opened)
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range servers {
		group.Go(func() error { return s.run(ctx) })
	}
	group.Go(func() error {
		return d.deps.Bus.Serve(ctx, bus.ServeOptions{
			Name: d.Name(), Version: "1.0.0", Description: "Hands messages to phones and knows where each stands",
			Endpoints: endpoints, Log: d.deps.Log,
		})
	})
	return group.Wait()
}
