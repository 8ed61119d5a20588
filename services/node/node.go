// Package node runs parts of the product in this process: all of them with the engine embedded (Run), or some of them
// over a cluster of engines in which they meet the others (RunParts).
package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/service"
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

// aside names the connection of an ingress for what must not wait behind pages.
const aside = Ingress + "-aside"

// process is what the parts of this process have in common.
type process struct {
	cfg      Config
	log      *zap.Logger
	version  string
	names    []string // of the parts
	listener net.Listener
	metrics  *prometheus.Registry
	dir      string // of projections
	clock    *clock.Clock
	buses    map[string]*bus.Bus // by part: each has a connection, and ingress one more
	shards   streams.Shards
}

func newProcess(cfg Config, log *zap.Logger, version string, names []string) *process {
	p := &process{cfg: cfg, log: log, version: version, names: names, metrics: prometheus.NewRegistry(), buses: map[string]*bus.Bus{}}
	p.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return p
}

// known checks names of parts; none are all of them.
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

// listen opens the address of the HTTP side, unless there is a listener already.
func (p *process) listen(ctx context.Context) (err error) {
	if p.listener == nil {
		if p.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", p.cfg.HTTP); err != nil {
			return fmt.Errorf("listen on %s: %w; choose another address with --http", p.cfg.HTTP, err)
		}
	}
	return nil
}

// own makes the place for projections, which is this process's alone: whoever shares it waits for the files' locks and
// then says so.
func (p *process) own() error {
	p.dir = filepath.Join(p.cfg.Data, "projections")
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("make a place for projections: %w", err)
	}
	return nil
}

// keepTime keeps the time for the next start until it is told to stop.
func (p *process) keepTime() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var keeping sync.WaitGroup
	keeping.Go(func() { p.clock.Keep(ctx, p.cfg.Data) })
	return func() {
		cancel()
		keeping.Wait()
	}
}

// connect opens the connections. Those of an ingress have its key and permissions.
func (p *process) connect(open func(part, name string) (*bus.Bus, error)) error {
	for _, part := range p.names {
		names := []string{part}
		if part == Ingress {
			names = append(names, aside)
		}
		for _, name := range names {
			b, err := open(part, name)
			if err != nil {
				return err
			}
			p.buses[name] = b
		}
	}
	return nil
}

// over makes a bus over a connection that was opened.
func over(conn *nats.Conn, err error) (*bus.Bus, error) {
	if err != nil {
		return nil, err
	}
	b, err := bus.New(conn)
	if err != nil {
		conn.Close()
	}
	return b, err
}

// flushTimeout bounds the last word to the engine.
const flushTimeout = time.Second

// disconnect closes the connections, once the parts have returned.
func (p *process) disconnect() {
	for _, b := range p.buses {
		_ = b.Conn.FlushTimeout(flushTimeout) // what it could lose, nobody was answered
		b.Conn.Close()
	}
}

func (p *process) deps(name string) service.Deps {
	return service.Deps{Bus: p.buses[name], Dir: p.dir, Log: p.log, Metrics: p.metrics, Now: p.clock.Now, Clock: p.clock}
}

// setting is what differs between parts beside an engine and those over a cluster.
type setting struct {
	ingress  ingress.Config
	disk     ingress.Disk                                         // nil: it is another process's
	room     func(bytes int64) error                              // on it, for releases; nil: nobody knows
	instance int                                                  // of the dispatcher
	watched  []string                                             // streams whose leaders tell their time; none: the engine's
	note     func(name string, ready func(context.Context) error) // is told of each part that has projections
}

// assemble makes the parts. Front takes requests, and needs what back answers until it has returned.
func (p *process) assemble(s setting) (front, back []service.Service) {
	back = append(back, service.ClockWatch{Deps: p.deps(p.names[0]), Streams: s.watched})
	for _, name := range p.names {
		deps := p.deps(name)
		switch name {
		case Ingress:
			front = append(front, ingress.New(s.ingress, ingress.Deps{
				Deps: deps, Aside: p.buses[aside], Shards: p.shards, Disk: s.disk, Listener: p.listener, Version: p.version, Gatherer: p.metrics,
			}))
		case Quota:
			part := quota.New(p.cfg.Quota, quota.Deps{Deps: deps, Shards: p.shards})
			s.note(name, part.Ready)
			back = append(back, part)
		case Dispatcher:
			part := dispatcher.New(p.cfg.Dispatcher, dispatcher.Deps{Deps: deps, Shards: p.shards, Instance: s.instance})
			s.note(name, part.Ready)
			back = append(back, part)
		case Version:
			part := version.New(version.Deps{Deps: deps, Room: s.room})
			s.note(name, part.Ready)
			back = append(back, part)
		}
	}
	return front, back
}
