package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	lookEvery  = 500 * time.Millisecond
	lookWithin = 5 * time.Second
	// sayEvery is how often the log says what is waited for, unless it changes.
	sayEvery = 30 * time.Second
)

// found is what the streams say of the deployment.
type found struct {
	shards   streams.Shards
	replicas int
	aging    []string // streams that the engine ages by its clock: see streams.Retention
}

// Waits that end by themselves, in the words of the log and of health.
var (
	errNoEngine  = errors.New("no engine can be reached")
	errNoStreams = errors.New("the streams are not there yet: run `trunkline stream apply` once")
)

// await waits until every connection stands and the streams are there, and
// answers health meanwhile. It fails where waiting is of no use.
func (p *process) await(ctx context.Context) (found, error) {
	waiting := serveWaiting(p)
	defer waiting.end()
	var said string
	var next time.Time
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	for {
		got, err := p.look(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, bus.ErrTooSmall) || errors.Is(err, nats.ErrConnectionClosed) {
			return got, err
		}
		waiting.report(err)
		if text := err.Error(); text != said || time.Now().After(next) {
			p.log.Warn("waiting", zap.Strings("parts", p.names), zap.Error(err))
			said, next = text, time.Now().Add(sayEvery)
		}
		select {
		case <-ctx.Done():
			return found{}, nil
		case <-again.C:
		}
	}
}

// look says what the parts may start on, or why they may not yet.
func (p *process) look(ctx context.Context) (got found, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	for _, name := range p.names {
		b := p.buses[name]
		if !b.Conn.IsConnected() {
			if last := b.Conn.LastError(); last != nil {
				return got, fmt.Errorf("%w: %w", errNoEngine, last)
			}
			return got, errNoEngine
		}
		if got, err = findStreams(ctx, b); err != nil {
			return got, err
		}
		if name == Version {
			continue // which publishes no batches
		}
		if err := b.Require(ctx, probed(name), natsd.MaxPayload, natsd.MaxBatchSize); err != nil {
			return got, err
		}
	}
	return got, nil
}

// findStreams finds all streams: until the last is there, the first hold nothing.
func findStreams(ctx context.Context, b *bus.Bus) (got found, err error) {
	if got.shards, err = streams.FindShards(ctx, b.JS); err != nil {
		return got, fmt.Errorf("%w: %w", errNoStreams, err)
	}
	for _, name := range (streams.Deployment{Shards: got.shards}).Names() {
		stream, err := b.JS.Stream(ctx, name)
		if err != nil {
			return got, fmt.Errorf("%w: stream %s: %w", errNoStreams, name, err)
		}
		info := stream.CachedInfo()
		if info.Cluster != nil && info.Cluster.Leader == "" {
			return got, fmt.Errorf("stream %s has no leader: too few of its nodes run", name)
		}
		if name == streams.EnqueueStream(0) {
			got.replicas = info.Config.Replicas
		}
		if info.Config.MaxAge != 0 && (strings.HasPrefix(name, "ENQUEUE_") || strings.HasPrefix(name, "STATUS_")) {
			got.aging = append(got.aging, name)
		}
	}
	return got, nil
}

// probed is a subject that a part may publish to, on a stream that takes
// batches.
func probed(name string) string {
	switch name {
	case Quota:
		return streams.BarrierSubject(0)
	case Dispatcher:
		return streams.HorizonSubject(0)
	default:
		return streams.EnqueueSubject(0, 0, streams.Lane{Priority: streams.Normal, Class: streams.Text})
	}
}
