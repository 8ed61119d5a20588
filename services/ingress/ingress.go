// Package ingress is the HTTP side: it admits senders and phones, stores what they send, and asks the other parts
// for the rest. It keeps no state, and any number of ingresses may run.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/services/ingress/fleet"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
	"github.com/trunkline-sms/trunkline/services/ingress/registry"
	"github.com/trunkline-sms/trunkline/services/ingress/releases"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Disk is what the streams are stored on.
type Disk interface {
	Room() error     // why senders are rejected, as bus.ErrNotStored
	Writable() error // why nothing at all is stored, as bus.ErrNotStored
	Used() int       // percent
}

// Deps is what ingress is made of.
type Deps struct {
	service.Deps
	Aside    *bus.Bus // another connection, for the claim and the checks, which must not wait behind pages; nil: Bus
	Shards   streams.Shards
	Disk     Disk                // nil where the engine is in another process
	Listener net.Listener        // where HTTP is served; Run closes it
	Version  string              // of the program, semantic
	Gatherer prometheus.Gatherer // what /metrics shows
}

// Ingress is the service.
type Ingress struct {
	cfg        Config
	deps       Deps
	claim      *claim
	access     *access.Access
	fleet      *fleet.Fleet
	messages   *messages.Messages
	registry   *registry.Registry
	backend    *backend
	fences     []*bus.Fence // by shard
	releases   *releases.Releases
	committers []*bus.Committer
}

// New makes an ingress that runs once.
func New(cfg Config, d Deps) *Ingress {
	if d.Aside == nil {
		d.Aside = d.Bus
	}
	i := &Ingress{cfg: cfg, deps: d}
	for _, shard := range d.Shards.All() {
		i.fences = append(i.fences, bus.NewFence(d.Bus, streams.EnqueueStream(shard)))
	}
	i.claim = newClaim(d, i.serveRequests, func() bool { return i.messages.Idle() }, i.fences)
	i.access = access.New(access.Options{Bus: d.Bus, Log: d.Log, Now: d.Now})
	i.fleet = fleet.New(fleet.Options{Bus: d.Bus, Log: d.Log, Now: d.Now})
	i.registry = registry.New(registry.Options{Bus: d.Bus, Log: d.Log, Now: d.Now})
	o := messages.Options{
		Bus: d.Bus, Fleet: i.fleet, Shards: d.Shards, Fences: i.fences, Identity: i.claim,
		Log: d.Log, Metrics: d.Metrics, Now: d.Now, Sure: d.Sure,
	}
	commits := newCommitMetrics(d.Metrics)
	if d.Disk != nil {
		o.Room = d.Disk.Room
	}
	for _, shard := range d.Shards.All() {
		o.Enqueue = append(o.Enqueue, i.committer(streams.EnqueueStream(shard), i.fences[shard], commits.of("enqueue")))
		o.Status = append(o.Status, i.committer(streams.StatusStream(shard), nil, commits.of("status")))
	}
	i.messages = messages.New(o)
	i.backend = newBackend(i.access, i.fleet, i.messages, i.registry, d.Metrics)
	i.releases = releases.New(releases.Options{
		Bus: d.Bus, Dir: filepath.Join(d.Dir, "apks"), Room: o.Room, Log: d.Log, Metrics: d.Metrics, Now: d.Now,
	})
	return i
}

// What waits to be committed is a few seconds of work, and the accounts take turns.
//
// Limit: 16 MiB wait to be committed to a stream; of one account as much as it leaves to others, so half at most.
// Beyond it: 503 `not_stored` with Retry-After.
// Used up by: accounts that send faster than the disk stores. Hurts: first the account that has most waiting.
// Test: TestCommitter_Owners.
const maxWaiting = 16 << 20

func (i *Ingress) committer(stream string, fence *bus.Fence, observe observer) *bus.Committer {
	c := bus.NewCommitter(i.deps.Bus, stream, bus.CommitterOptions{
		Threshold: i.cfg.BatchThreshold, MaxWaiting: maxWaiting, Owner: streams.OwnerOf, Observe: observe, Now: i.deps.Now, Fence: fence,
	})
	i.committers = append(i.committers, c)
	return c
}

// Name is "ingress".
func (i *Ingress) Name() string { return "ingress" }

// Run serves until ctx is done. Then it takes no more requests, finishes those that are under way, commits what they
// wait for, and gives its number back, in this order.
func (i *Ingress) Run(ctx context.Context) error {
	return nest(ctx, i.runParts, i.claim.run, i.runCommitters, i.releases.Run, i.serveHTTP)
}

func (i *Ingress) runParts(ctx context.Context) error {
	return together[part](ctx, i.access, i.fleet, i.messages, i.registry)
}

func (i *Ingress) runCommitters(ctx context.Context) error { return together(ctx, i.committers...) }

// part is a piece of the ingress that runs until ctx is done.
type part interface {
	Run(ctx context.Context) error
}

// together runs parts until ctx is done, or the first of them fails.
func together[P part](ctx context.Context, parts ...P) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, part := range parts {
		g.Go(func() error { return part.Run(ctx) })
	}
	return g.Wait()
}

func (i *Ingress) serveHTTP(ctx context.Context) error {
	return httpx.Serve(ctx, httpx.ServerOptions{
		Listener: i.deps.Listener, Handler: i.handler(), Log: i.deps.Log, Grace: i.cfg.StopGrace,
	})
}

// serveRequests answers requests of the other parts under an instance number, until ctx is done: the number is lost. life
// ends later, with the ingress.
func (i *Ingress) serveRequests(ctx, life context.Context, number int) error {
	err := i.deps.Bus.Serve(ctx, bus.ServeOptions{
		Name:        "ingress",
		Version:     i.deps.Version,
		Description: "HTTP for senders and phones",
		Life:        life,
		Log:         i.deps.Log,
		Endpoints: []bus.Endpoint{
			{Subject: request.IngressSeen(number), Handler: bus.Handle(i.access.Seen)},
			{Subject: request.IngressGrants(number), Handler: bus.Handle(i.messages.OpenGrants)},
		},
	})
	if err == nil && ctx.Err() == nil {
		err = errors.New("requests are no longer answered")
	}
	return err
}

// nest runs parts at the same time, and ends each only after those behind it have returned. A part that returns
// early ends the others.
func nest(ctx context.Context, parts ...func(context.Context) error) error {
	if len(parts) == 1 {
		return parts[0](ctx)
	}
	inner, stopInner := context.WithCancel(ctx)
	defer stopInner()
	outer, stopOuter := context.WithCancel(context.WithoutCancel(ctx))
	defer stopOuter()
	failed := make(chan error, 1)
	go func() {
		err := parts[0](outer)
		if err == nil && outer.Err() == nil {
			err = fmt.Errorf("a part returned although nobody stopped it")
		}
		stopInner()
		failed <- err
	}()
	err := nest(inner, parts[1:]...)
	stopOuter()
	return errors.Join(<-failed, err)
}
