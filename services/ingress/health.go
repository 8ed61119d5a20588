package ingress

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// releaseID numbers the HTTP side's contract.
const releaseID = 1

// Limit: health warns when a stream or the disk is 70 % full. Beyond it: the status is `warn`, the answer still 200.
// Used up by: accounts that store much. Hurts: nobody: the operator is warned. Test: TestIngress_disk.
const fullAt = 70

// health is ready when senders and phones can be served.
func (i *Ingress) health() *httpx.Health {
	h := httpx.NewHealth(i.deps.Version, releaseID)
	h.Register("nats:connection", func(context.Context) httpx.Check {
		return judged("Connected to the engine", i.deps.Bus.Conn.Status() == nats.CONNECTED)
	})
	h.Register("accounts:loaded", func(context.Context) httpx.Check {
		return judged("The accounts have been read", i.access.Loaded())
	})
	h.Register("instance:claimed", func(context.Context) httpx.Check {
		_, err := i.claim.Instance()
		return judged("An instance number is held", err == nil)
	})
	if i.deps.Clock != nil {
		h.Register("clock:skew", httpx.CheckClock(i.deps.Clock))
	}
	if i.deps.Disk != nil {
		h.Register("disk:full", i.disk)
	}
	h.Register("accounts:share", i.holding)
	h.Register("quota:answer", i.asks("Quota answers", func(ctx context.Context) error {
		_, err := bus.Call[request.Usage](ctx, i.deps.Aside, request.QuotaUsage, request.UsageOf{})
		return err
	}))
	// Messages need no releases: without that service there is a warning.
	h.Register("version:answer", warns(i.asks("The version service answers", func(ctx context.Context) error {
		_, err := bus.Call[request.VersionsListed](ctx, i.deps.Aside, request.VersionList, request.Versions{})
		return err
	})))
	for _, shard := range i.deps.Shards.All() {
		h.Register("dispatcher-"+shard.String()+":answer", i.asks("A dispatcher of the shard answers", func(ctx context.Context) error {
			_, err := bus.Call[request.Found](ctx, i.deps.Aside, request.DispatcherFind(shard), request.Find{})
			return err
		}))
		for family, stream := range map[string]string{"enqueue": streams.EnqueueStream(shard), "status": streams.StatusStream(shard)} {
			h.Register(family+"-"+shard.String()+":full", func(ctx context.Context) httpx.Check { return i.fullness(ctx, stream) })
		}
	}
	return h
}

// asks checks another part by a cheap request. Until the part has answered once, the system is starting and not ready.
// After that its absence is a warning, since everything that does not need it goes on. A part that cannot write its
// projection fails the check.
func (i *Ingress) asks(description string, ask func(context.Context) error) func(context.Context) httpx.Check {
	var answered atomic.Bool
	return func(ctx context.Context) httpx.Check {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		// Any answer will do, even that there is no such thing.
		err := ask(ctx)
		alive := !fault.Is(err, fault.Unavailable)
		if alive {
			answered.Store(true)
		}
		check := judged(description, alive)
		switch {
		case !alive && fault.As(err).Code == projection.Unwritten:
			check.Description = fault.As(err).Text
		case !alive && answered.Load():
			check.Status = httpx.Warn
		}
		return check
	}
}

// warns makes of a check one that never fails.
func warns(check func(context.Context) httpx.Check) func(context.Context) httpx.Check {
	return func(ctx context.Context) httpx.Check {
		c := check(ctx)
		if c.Status == httpx.Fail {
			c.Status = httpx.Warn
		}
		return c
	}
}

func (i *Ingress) fullness(ctx context.Context, stream string) httpx.Check {
	check := httpx.Check{Description: "Of the stream's size limit", ObservedUnit: "percent", Status: httpx.Pass}
	s, err := i.deps.Aside.JS.Stream(ctx, stream)
	if err != nil {
		check.Status = httpx.Fail
		return check
	}
	info := s.CachedInfo()
	if limit := info.Config.MaxBytes; limit > 0 {
		check.ObservedValue = int(info.State.Bytes * 100 / uint64(limit))
	}
	if check.ObservedValue >= fullAt {
		check.Status = httpx.Warn
	}
	return check
}

// holding warns when an account has stored nearly all that it may, or is rejected because it has stored all.
func (i *Ingress) holding(context.Context) httpx.Check {
	check := httpx.Check{Description: "Of the room that the others leave, held by one account", ObservedUnit: "percent", Status: httpx.Pass}
	near, over, most := i.messages.Stored()
	if check.ObservedValue = most; near > 0 {
		check.Status = httpx.Warn
	}
	if over > 0 {
		check.Description = "An account has stored all that it may in a stream and is rejected: the dispatcher's log names it"
	}
	return check
}

// disk fails when nothing can be stored, and warns when senders are rejected, or will be.
func (i *Ingress) disk(context.Context) httpx.Check {
	check := httpx.Check{Description: "Of the disk", ObservedUnit: "percent", ObservedValue: i.deps.Disk.Used(), Status: httpx.Pass}
	if check.ObservedValue >= fullAt {
		check.Status = httpx.Warn
	}
	if i.deps.Disk.Room() != nil {
		check.Description, check.Status = "The disk is nearly full: senders get 503, phones are served", httpx.Warn
	}
	if err := i.deps.Disk.Writable(); errors.Is(err, bus.ErrFull) {
		check.Description, check.Status = "The disk is full: nothing can be stored until there is room", httpx.Fail
	} else if err != nil {
		check.Description, check.Status = "Nothing can be stored: the disk is read-only or fails", httpx.Fail
	}
	return check
}

// judged is a check that passes or fails.
func judged(description string, ok bool) httpx.Check {
	check := httpx.Check{Description: description, ObservedUnit: "boolean", Status: httpx.Fail}
	if ok {
		check.ObservedValue, check.Status = 1, httpx.Pass
	}
	return check
}
