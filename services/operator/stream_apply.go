package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/config"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/table"
	"github.com/trunkline-sms/trunkline/streams"
)

type streamApply struct {
	server
	asJSON
	Shards          int         `placeholder:"N" help:"Pairs of streams, 1 to 64, when they are made (default 1); fixed then."`
	Replicas        int         `placeholder:"N" help:"Copies of each stream (default: as it is; when they are made, 3 on a cluster, else 1)."`
	EnqueueMaxBytes config.Size `placeholder:"SIZE" help:"Most bytes of messages that a shard keeps (default: as it is, 16GiB when it is made)."`
	StatusMaxBytes  config.Size `placeholder:"SIZE" help:"Most bytes of leases and reports that a shard keeps (default: as it is, 8GiB when it is made)."`
	Missing         bool        `help:"Make streams that are missing although others are in use. What they held is gone then: look for it first."`
	DryRun          bool        `help:"Only say what would be done."`
}

func (streamApply) Help() string {
	return `Parts that run apart never make a stream: this command does, once, and moves streams to another number of
replicas or another size while they are used.

Example:

    trunkline stream apply --nats tls://nats-1:4222 --nkey operator.nk --replicas 3`
}

// The sizes of streams that are made without any said.
const (
	defaultEnqueue = 16 << 30
	defaultStatus  = 8 << 30
	minMaxBytes    = 1 << 20
)

// applied is what was done to a stream.
type applied struct {
	Stream string `json:"stream"`
	Done   string `json:"done"` // made, changed, or nothing
	Fields string `json:"fields,omitempty"`
}

func (c *streamApply) Run(ctx context.Context, t *Terminal) error {
	b, closeConn, err := c.dial()
	if err != nil {
		return err
	}
	defer closeConn()
	want, err := c.deployment(ctx, b)
	if err != nil {
		return err
	}
	done, err := c.apply(ctx, b.JS, want)
	if err != nil {
		return err
	}
	if !c.DryRun {
		// A cluster on which the parts would refuse to start should say so now.
		if err := b.Require(ctx, streams.BarrierSubject(0), natsd.MaxPayload, natsd.MaxBatchSize); err != nil {
			return err
		}
	}
	if c.JSON {
		return t.printJSON(done)
	}
	var p table.Table
	p.Row("STREAM", "DONE", "FIELDS")
	for _, one := range done {
		p.Row(one.Stream, one.Done, cmp.Or(one.Fields, "-"))
	}
	return p.Print(t.Out)
}

// deployment is what the streams should be: what was said, else what they are.
func (c *streamApply) deployment(ctx context.Context, b *bus.Bus) (streams.Deployment, error) {
	want := streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: defaultEnqueue, StatusMaxBytes: defaultStatus}
	if b.Conn.ConnectedClusterName() != "" {
		want.Replicas = 3
	}
	enqueue, err := b.JS.Stream(ctx, streams.EnqueueStream(0))
	switch {
	case err == nil:
		have := enqueue.CachedInfo().Config
		want.EnqueueMaxBytes, want.Replicas = have.MaxBytes, have.Replicas
		if want.Shards, err = streams.FindShards(ctx, b.JS); err != nil {
			return want, err
		}
		if status, err := b.JS.Stream(ctx, streams.StatusStream(0)); err == nil {
			want.StatusMaxBytes = status.CachedInfo().Config.MaxBytes
		}
		if c.Shards != 0 && streams.Shards(c.Shards) != want.Shards {
			return want, fmt.Errorf("this deployment began with %d shards, which cannot become %d", want.Shards, c.Shards)
		}
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return want, fmt.Errorf("look up stream %s: %w", streams.EnqueueStream(0), err)
	}
	want.Shards = streams.Shards(cmp.Or(c.Shards, int(want.Shards)))
	want.Replicas = cmp.Or(c.Replicas, want.Replicas)
	want.EnqueueMaxBytes = cmp.Or(int64(c.EnqueueMaxBytes), want.EnqueueMaxBytes)
	want.StatusMaxBytes = cmp.Or(int64(c.StatusMaxBytes), want.StatusMaxBytes)
	switch {
	case want.Shards < 1 || want.Shards > streams.MaxShards:
		return want, fmt.Errorf("shards: want 1 to %d, not %d", streams.MaxShards, want.Shards)
	case want.Replicas < 1 || want.Replicas > 5:
		return want, fmt.Errorf("replicas: want 1 to 5, not %d", want.Replicas)
	case want.EnqueueMaxBytes < minMaxBytes || want.StatusMaxBytes < minMaxBytes:
		return want, fmt.Errorf("sizes: want %v or more", config.Size(minMaxBytes))
	}
	return want, nil
}

func (c *streamApply) apply(ctx context.Context, js jetstream.JetStream, want streams.Deployment) ([]applied, error) {
	done := []applied{}
	missing := ""
	for _, problem := range unjoin(streams.Ensure(ctx, js, want, false)) {
		var gone *streams.Missing
		var difference *streams.Difference
		switch {
		case errors.As(problem, &gone):
			missing = gone.Stream
			done = append(done, applied{Stream: gone.Stream, Done: "made"})
		case errors.As(problem, &difference):
			done = append(done, applied{Stream: difference.Stream, Done: "changed", Fields: strings.Join(difference.Fields, "; ")})
		default:
			return nil, problem
		}
	}
	if missing != "" && !c.Missing {
		// One that broke off left empty streams, and goes on.
		used, err := streams.Used(ctx, js, want)
		if err != nil {
			return nil, err
		}
		if used {
			return nil, fmt.Errorf("stream %s is missing although others are in use: it was deleted, its nodes are away, or an older version made them; --missing creates it again, empty", missing)
		}
	}
	if c.DryRun {
		return done, nil
	}
	for _, one := range done {
		if one.Done == "changed" {
			if err := streams.Change(ctx, js, want, one.Stream); err != nil {
				return nil, err
			}
		}
	}
	if missing == "" {
		return done, nil
	}
	return done, streams.Ensure(ctx, js, want, true)
}

// unjoin gives the errors that were joined.
func unjoin(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
