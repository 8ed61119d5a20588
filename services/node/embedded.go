package node

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/pkg/service"
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

// Run runs the server, with its engine, on its data directory until ctx is done or a part fails. When it returns nothing
// of it runs any more, and all that was answered is stored.
func Run(ctx context.Context, cfg Config, d Deps) (err error) {
	if err := cfg.Check(); err != nil {
		return err
	}
	// Before the engine: on a wrong clock it would drop what it takes to be old.
	sure, err := clock.Await(ctx, cfg.Data, clock.Options{Now: d.Now, Right: d.ClockIsRight, Log: d.Log})
	if err != nil {
		return stopped(ctx, err)
	}
	p := newProcess(cfg, d.Log, d.Version, Parts())
	p.clock, p.listener, p.shards = clock.New(sure), d.Listener, streams.Shards(cfg.Engine.Shards)
	d.Now = p.clock.Now
	if d.Client == nil {
		d.Client = http.DefaultClient
	}
	// Before the engine: an address that is taken should not cost a start.
	if err := p.listen(ctx); err != nil {
		return err
	}
	defer p.listener.Close() // ingress does, unless it never came to run

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
	defer p.keepTime()()
	if err := p.own(); err != nil {
		return err
	}
	token, err := prepare(ctx, cfg, d, engine)
	if err != nil {
		return err
	}
	defer p.disconnect()
	if err := p.connect(func(_, name string) (*bus.Bus, error) { return dial(engine, d.Way, name) }); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { d.Log.Info("stopping") })()
	front, back := p.assemble(setting{
		ingress: cfg.Ingress, disk: engine.Disk(), room: engine.Disk().RoomFor, note: func(string, func(context.Context) error) {},
	})
	running, end := context.WithCancel(ctx)
	var starting sync.WaitGroup
	defer starting.Wait()
	defer end()
	starting.Go(func() {
		url := "http://" + reachable(p.listener.Addr())
		if !awaitReady(running, d.Client, url, d.Log) {
			return
		}
		d.Log.Info("ready", zap.String("url", url), zap.String("data", cfg.Data), zap.String("version", d.Version))
		if d.Ready != nil {
			d.Ready(Started{URL: url, Token: token, Connect: engine.Connect})
		}
	})
	return service.RunInOrder(ctx, front, back)
}

// stopped is nil for a start that was stopped.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func dial(engine *natsd.Server, by func(nats.InProcessConnProvider) nats.InProcessConnProvider, name string) (*bus.Bus, error) {
	var way nats.InProcessConnProvider = engine
	if by != nil {
		way = by(engine)
	}
	b, err := over(engine.ConnectBy(name, way))
	if err == nil {
		b.MayStore = engine.Disk().Writable
	}
	return b, err
}
