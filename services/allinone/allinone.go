// Package allinone runs the whole product in one process, the engine embedded.
package allinone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/services/dispatcher"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/services/quota"
	"github.com/trunkline-sms/trunkline/services/version"
	"github.com/trunkline-sms/trunkline/streams"
)

// Deps is what the process gives to the server. Only Log and Version must be
// given.
type Deps struct {
	Log     *zap.Logger
	Version string
	Now     func() time.Time // the machine's clock; nil: time.Now
	// ClockIsRight says that the machine's clock is right, however far ahead of
	// the data directory it is, or behind.
	ClockIsRight bool
	// Listener takes the place of one on Config.HTTP, and Client reaches it.
	Listener net.Listener
	Client   *http.Client
	// InProcessOnly leaves out the engine's own listener: simulated time needs
	// that, and no command can reach the server then.
	InProcessOnly bool
	// Way lies between the parts and the engine, to which it is given the way;
	// nil: nothing does. Simulations hold back there what is on its way.
	Way func(nats.InProcessConnProvider) nats.InProcessConnProvider
	// Ready is called once, as soon as every part works.
	Ready func(Started)
}

// Started is a server that works.
type Started struct {
	URL   string        // where senders and phones reach it
	Token secret.String // of the account default; empty unless this is the first start
	// Connect reaches the engine from within the process, under a name of the
	// caller's.
	Connect func(name string) (*nats.Conn, error)
}

// Run runs the server on its data directory until ctx is done or a part fails.
// When it returns nothing of it runs any more, and all that was answered is
// stored.
func Run(ctx context.Context, cfg Config, d Deps) (err error) {
	if err := cfg.Check(); err != nil {
		return err
	}
	// Before the engine: on a wrong clock it would drop what it takes to be old.
	sure, err := clock.Await(ctx, cfg.Data, clock.Options{Now: d.Now, Right: d.ClockIsRight, Log: d.Log})
	if err != nil {
		return stopped(ctx, err)
	}
	watch := clock.New(sure)
	d.Now = watch.Now
	if d.Client == nil {
		d.Client = http.DefaultClient
	}
	if d.Listener == nil {
		// Before the engine: an address that is taken should not cost a start.
		if d.Listener, err = new(net.ListenConfig).Listen(ctx, "tcp", cfg.HTTP); err != nil {
			return fmt.Errorf("listen on %s: %w; choose another address with --http", cfg.HTTP, err)
		}
	}
	defer d.Listener.Close() // ingress does, unless it never came to run

	engine, err := natsd.Start(natsd.Options{
		Dir:            cfg.Data,
		InProcessOnly:  d.InProcessOnly,
		Durability:     cfg.Engine.Durability,
		MaxStore:       int64(cfg.Engine.MaxStore),
		ReservePercent: cfg.Engine.ReservePercent,
		ReserveBytes:   int64(cfg.Engine.ReserveMin),
		Log:            d.Log,
	})
	if err != nil {
		return err
	}
	defer engine.Stop()
	defer keep(watch, cfg.Data)()

	projections := filepath.Join(cfg.Data, "projections")
	if err := os.MkdirAll(projections, 0o700); err != nil {
		return fmt.Errorf("make a place for projections: %w", err)
	}
	token, err := prepare(ctx, cfg, d, engine)
	if err != nil {
		return err
	}
	parts, err := connect(cfg, d, watch, engine, projections)
	if err != nil {
		return err
	}
	defer parts.disconnect()
	defer context.AfterFunc(ctx, func() { d.Log.Info("stopping") })()
	return parts.run(ctx, func(ctx context.Context) {
		url := "http://" + reachable(d.Listener.Addr())
		if !awaitReady(ctx, d.Client, url, d.Log) {
			return
		}
		d.Log.Info("ready", zap.String("url", url), zap.String("data", cfg.Data), zap.String("version", d.Version))
		if d.Ready != nil {
			d.Ready(Started{URL: url, Token: token, Connect: engine.Connect})
		}
	})
}

// stopped is nil for a start that was stopped.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// keep keeps the time for the next start until it is told to stop.
func keep(c *clock.Clock, dir string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	keeping.Go(func() { c.Keep(ctx, dir) })
	return func() {
		cancel()
		keeping.Wait()
	}
}

// parts are the services, each with a connection of its own, and ingress with one more.
type parts struct {
	buses []*bus.Bus
	front service.Service   // takes requests
	back  []service.Service // answers what the front asks
}

func connect(cfg Config, d Deps, watch *clock.Clock, engine *natsd.Server, dir string) (*parts, error) {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	shards := streams.Shards(cfg.Engine.Shards)
	p := &parts{}
	deps := func(name string) (service.Deps, error) {
		b, err := dial(engine, d.Way, name)
		if err != nil {
			return service.Deps{}, err
		}
		p.buses = append(p.buses, b)
		return service.Deps{
			Bus: b, Dir: dir, Log: d.Log, Metrics: metrics, Now: d.Now, Clock: watch,
		}, nil
	}
	forIngress, err := deps("ingress")
	aside, err0 := deps("ingress-aside")
	forQuota, err2 := deps("quota")
	forDispatcher, err3 := deps("dispatcher")
	forVersion, err4 := deps("version")
	if err := errors.Join(err, err0, err2, err3, err4); err != nil {
		return nil, err
	}
	clockWatch := service.ClockWatch{Deps: forQuota} // the engine's clock is the same
	p.front = ingress.New(cfg.Ingress, ingress.Deps{
		Deps: forIngress, Aside: aside.Bus, Shards: shards, Disk: engine.Disk(), Listener: d.Listener, Version: d.Version, Gatherer: metrics,
	})
	p.back = []service.Service{
		clockWatch,
		quota.New(cfg.Quota, quota.Deps{Deps: forQuota, Shards: shards}),
		dispatcher.New(cfg.Dispatcher, dispatcher.Deps{Deps: forDispatcher, Shards: shards}),
		version.New(version.Deps{Deps: forVersion, Room: engine.Disk().RoomFor}),
	}
	return p, nil
}

func dial(engine *natsd.Server, by func(nats.InProcessConnProvider) nats.InProcessConnProvider, name string) (*bus.Bus, error) {
	var way nats.InProcessConnProvider = engine
	if by != nil {
		way = by(engine)
	}
	conn, err := engine.ConnectBy(name, way)
	if err != nil {
		return nil, err
	}
	b, err := bus.New(conn)
	if err == nil {
		b.Gate = engine.Disk().Writable
	}
	return b, err
}

// run runs the parts, and started beside them, until ctx is done or a part fails.
// The front ends before the back does, so that requests in flight are answered.
func (p *parts) run(ctx context.Context, started func(context.Context)) error {
	front, stopFront := context.WithCancel(ctx)
	defer stopFront()
	back, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	var g errgroup.Group
	g.Go(func() error {
		defer stopBack()
		return service.Run(front, p.front)
	})
	g.Go(func() error {
		defer stopFront()
		return service.Run(back, p.back...)
	})
	g.Go(func() error {
		started(front)
		return nil
	})
	return g.Wait()
}

// flushTimeout bounds the last word to the engine, which is in this process.
const flushTimeout = time.Second

// disconnect closes the connections, once the services have returned.
func (p *parts) disconnect() {
	for _, b := range p.buses {
		_ = b.Conn.FlushTimeout(flushTimeout) // what it could lose, nobody was answered
		b.Conn.Close()
	}
}
