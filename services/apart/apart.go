// Package apart runs parts of the product in this process, over a cluster of
// engines in which they meet others.
package apart

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/services/allinone"
	"github.com/trunkline-sms/trunkline/services/dispatcher"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/services/quota"
	"github.com/trunkline-sms/trunkline/services/version"
	"github.com/trunkline-sms/trunkline/streams"
)

// The names of the parts.
const (
	Ingress    = "ingress"
	Quota      = "quota"
	Dispatcher = "dispatcher"
	Version    = "version"
)

// Parts lists the names of all parts.
func Parts() []string { return []string{Ingress, Quota, Dispatcher, Version} }

// Deps is what the process gives to the parts.
type Deps struct {
	Log     *zap.Logger
	Version string
	// ClockIsRight says that the machine's clock is right.
	ClockIsRight bool
	// Listening is called once with the address of the HTTP side, which says in
	// /health/ready whether the parts work.
	Listening func(url string)
}

// Run runs the named parts until ctx is done or one of them fails. It waits for
// the engines and for the streams, and says what it waits for.
func Run(ctx context.Context, cfg allinone.Config, names []string, d Deps) error {
	names, err := known(names)
	if err != nil {
		return err
	}
	if err := cfg.Check(); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.HTTP)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; choose another address with --http", cfg.HTTP, err)
	}
	defer listener.Close()
	p := &process{cfg: cfg, names: names, deps: d, listener: listener, metrics: prometheus.NewRegistry()}
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer p.disconnect()
	if err := p.join(); err != nil {
		return err
	}
	if p.dir, err = own(cfg.Data); err != nil {
		return err
	}
	known, err := clock.Find(cfg.Data, clock.Options{Right: d.ClockIsRight, Log: d.Log})
	if err != nil {
		return err
	}
	p.clock = clock.New(known)
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var kept sync.WaitGroup
	defer kept.Wait()
	defer stop()
	kept.Go(func() { p.clock.Keep(keeping, cfg.Data) })
	if d.Listening != nil {
		d.Listening("http://" + listener.Addr().String())
	}
	defer context.AfterFunc(ctx, func() { d.Log.Info("stopping") })()
	shards, err := p.await(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	return p.run(ctx, shards)
}

// known checks the names; none are all of them.
func known(names []string) ([]string, error) {
	if len(names) == 0 {
		return Parts(), nil
	}
	for _, name := range names {
		if !slices.Contains(Parts(), name) {
			return nil, fmt.Errorf("there is no part %s: want some of %s", name, strings.Join(Parts(), ", "))
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// own makes the place for projections, which is this process's alone: whoever
// shares it waits for the files' locks and then says so.
func own(data string) (string, error) {
	dir := filepath.Join(data, "projections")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make a place for projections: %w", err)
	}
	return dir, nil
}

// process is the parts of this process.
type process struct {
	cfg      allinone.Config
	names    []string
	deps     Deps
	listener net.Listener
	metrics  *prometheus.Registry
	dir      string
	clock    *clock.Clock
	buses    map[string]*bus.Bus // by part: each has a connection and may have a key of its own
}

// aside names the connection of an ingress for what must not wait behind pages.
const aside = Ingress + "-aside"

func (p *process) join() error {
	p.buses = map[string]*bus.Bus{}
	n := p.cfg.NATS
	connections := p.names
	if slices.Contains(p.names, Ingress) {
		connections = append(slices.Clone(p.names), aside)
	}
	for _, name := range connections {
		part := name
		if name == aside {
			part = Ingress // whose key and permissions it has
		}
		conn, err := natsd.Join(natsd.JoinOptions{
			URLs: n.URLs, Name: part, NKey: n.NKey, Creds: n.Creds, CA: n.CA, Cert: n.Cert, Key: n.Key, Log: p.deps.Log,
		})
		if err != nil {
			return err
		}
		b, err := bus.New(conn)
		if err != nil {
			conn.Close()
			return err
		}
		p.buses[name] = b
	}
	return nil
}

// flushTimeout bounds the last word to the engine.
const flushTimeout = time.Second

func (p *process) disconnect() {
	for _, b := range p.buses {
		_ = b.Conn.FlushTimeout(flushTimeout) // what it could lose, nobody was answered
		b.Conn.Close()
	}
}

// run runs the parts until ctx is done or one fails. Ingress ends before the
// others do, so that requests in flight are answered.
func (p *process) run(ctx context.Context, shards found) error {
	var front, back []service.Service
	checks := newHealth(p.deps.Version)
	checks.clock(p.clock)
	depsOf := func(name string) service.Deps {
		return service.Deps{Bus: p.buses[name], Dir: p.dir, Log: p.deps.Log, Metrics: p.metrics, Now: p.clock.Now, Clock: p.clock}
	}
	watch := service.ClockWatch{Deps: depsOf(p.names[0])}
	for _, shard := range shards.shards.All() {
		watch.Streams = append(watch.Streams, streams.EnqueueStream(shard), streams.StatusStream(shard))
	}
	back = append(back, watch)
	for _, name := range p.names {
		deps := depsOf(name)
		switch name {
		case Ingress:
			cfg := p.cfg.Ingress
			if shards.replicas > 1 && cfg.BatchThreshold == ingress.DefaultConfig().BatchThreshold {
				cfg.BatchThreshold = math.MaxInt
			}
			front = append(front, ingress.New(cfg, ingress.Deps{
				Deps: deps, Aside: p.buses[aside], Shards: shards.shards, Listener: p.listener, Version: p.deps.Version, Gatherer: p.metrics,
			}))
		case Quota:
			q := quota.New(p.cfg.Quota, quota.Deps{Deps: deps, Shards: shards.shards})
			checks.part(name, p.buses[name], q.Ready)
			back = append(back, q)
		case Version:
			part := version.New(version.Deps{Deps: deps})
			checks.part(name, p.buses[name], part.Ready)
			back = append(back, part)
		case Dispatcher:
			part := dispatcher.New(p.cfg.Dispatcher, dispatcher.Deps{
				// Lease ids are told apart inside an account, whose leases are
				// given one after the other: a number that two have by chance
				// costs a second id.
				Deps: deps, Shards: shards.shards, Instance: rand.IntN(streams.MaxInstance + 1), //nolint:gosec // need not be unguessable
			})
			checks.part(name, p.buses[name], part.Ready)
			back = append(back, part)
		}
	}
	if len(front) == 0 {
		front = append(front, &watched{p, checks})
	}
	if len(shards.aging) > 0 {
		p.deps.Log.Warn("streams lose what the nodes' clocks call old: run `trunkline stream apply` once", zap.Strings("streams", shards.aging))
	}
	p.deps.Log.Info("started", zap.Strings("parts", p.names), zap.Int("shards", int(shards.shards)), zap.Int("replicas", shards.replicas), zap.String("version", p.deps.Version))
	return service.RunInOrder(ctx, front, back)
}
