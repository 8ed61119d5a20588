package node

import (
	"context"
	"math"
	"math/rand/v2"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/streams"
)

// PartsDeps is what the process gives to parts that run over a cluster.
type PartsDeps struct {
	Log     *zap.Logger
	Version string
	// ClockIsRight says that the machine's clock is right.
	ClockIsRight bool
	// Listening is called once with the address of the HTTP side, which says in
	// /health/ready whether the parts work.
	Listening func(url string)
}

// RunParts runs the named parts over a cluster until ctx is done or one of them fails. It waits for the engines and for
// the streams, and says what it waits for.
func RunParts(ctx context.Context, cfg Config, names []string, d PartsDeps) error {
	names, err := known(names)
	if err != nil {
		return err
	}
	if err := cfg.Check(); err != nil {
		return err
	}
	p := newProcess(cfg, d.Log, d.Version, names)
	if err := p.listen(ctx); err != nil {
		return err
	}
	defer p.listener.Close()
	defer p.disconnect()
	if err := p.connect(p.join); err != nil {
		return err
	}
	if err := p.own(); err != nil {
		return err
	}
	known, err := clock.Find(cfg.Data, clock.Options{Right: d.ClockIsRight, Log: d.Log})
	if err != nil {
		return err
	}
	p.clock = clock.New(known)
	defer p.keepTime()()
	if d.Listening != nil {
		d.Listening("http://" + p.listener.Addr().String())
	}
	defer context.AfterFunc(ctx, func() { d.Log.Info("stopping") })()
	got, err := p.await(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	return p.runOn(ctx, got)
}

// join connects to the cluster, with the key of a part.
func (p *process) join(part, _ string) (*bus.Bus, error) {
	n := p.cfg.NATS
	return over(natsd.Join(natsd.JoinOptions{
		URLs: n.URLs, Name: part, NKey: n.NKey, Creds: n.Creds, CA: n.CA, Cert: n.Cert, Key: n.Key, Log: p.log,
	}))
}

// runOn runs the parts on streams that were found, until ctx is done or one fails.
func (p *process) runOn(ctx context.Context, got found) error {
	p.shards = got.shards
	checks := newHealth(p.version)
	checks.clock(p.clock)
	s := setting{
		ingress: p.cfg.Ingress,
		// Lease ids are told apart inside an account, whose leases are given one after the other: a number that two have by
		// chance costs a second id.
		instance: rand.IntN(streams.MaxInstance + 1), //nolint:gosec // need not be unguessable
		note:     func(name string, ready func(context.Context) error) { checks.part(name, p.buses[name], ready) },
	}
	if got.replicas > 1 && s.ingress.BatchThreshold == ingress.DefaultConfig().BatchThreshold {
		s.ingress.BatchThreshold = math.MaxInt
	}
	for _, shard := range p.shards.All() {
		s.watched = append(s.watched, streams.EnqueueStream(shard), streams.StatusStream(shard))
	}
	front, back := p.assemble(s)
	if len(front) == 0 {
		front = append(front, &watched{p, checks})
	}
	if len(got.aging) > 0 {
		p.log.Warn("streams lose what the nodes' clocks call old: run `trunkline stream apply` once", zap.Strings("streams", got.aging))
	}
	p.log.Info("started", zap.Strings("parts", p.names), zap.Int("shards", int(p.shards)), zap.Int("replicas", got.replicas), zap.String("version", p.version))
	return service.RunInOrder(ctx, front, back)
}
