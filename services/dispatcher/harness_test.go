package dispatcher_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/clock/clocktest"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/dispatcher"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// harness is a dispatcher on a real engine, asked as ingress asks it.
type harness struct {
	t      testing.TB
	bus    *bus.Bus
	shards streams.Shards
	ids    *streams.IDs
	cfg    dispatcher.Config
	dir    string
	shift  atomic.Int64 // how far ahead of the test the product's clock is, as a time.Duration
	// machine, if there is one, is what a Clock of each start reads.
	machine *clocktest.Stepped
	clock   *clock.Clock
	stop    func()
}

func newHarness(t testing.TB, shards streams.Shards) *harness {
	t.Helper()
	return newHarnessAhead(t, shards, 0)
}

// newHarnessAhead is newHarness where the product's clock is ahead of the engine's.
func newHarnessAhead(t testing.TB, shards streams.Shards, shift time.Duration) *harness {
	t.Helper()
	h := &harness{t: t, bus: bustest.New(t), shards: shards, cfg: dispatcher.DefaultConfig(), dir: t.TempDir()}
	h.shift.Store(int64(shift))
	h.ids = streams.NewIDs(h.now, 5, time.Time{})
	d := streams.Deployment{Shards: shards, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}
	if err := streams.Ensure(t.Context(), h.bus.JS, d, true); err != nil {
		t.Fatal(err)
	}
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *harness) now() time.Time {
	if h.clock != nil {
		return h.clock.Now()
	}
	return time.Now().Add(time.Duration(h.shift.Load()))
}

func (h *harness) start() { h.stop = h.run(h.dir, 0) }

// run runs another dispatcher over the same streams.
func (h *harness) run(dir string, instance int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	if h.machine != nil {
		h.clock = clock.New(clock.Options{Now: h.machine.Now})
	}
	d := dispatcher.New(h.cfg, dispatcher.Deps{
		Deps:     service.Deps{Bus: h.bus, Dir: dir, Log: zap.NewNop(), Now: h.now, Clock: h.clock},
		Shards:   h.shards,
		Instance: instance,
	})
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx, d) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("dispatcher ended: %v", err)
		}
	}
}

func (h *harness) restart() {
	h.stop()
	h.start()
}

var normal = streams.Lane{Priority: streams.Normal}

func (h *harness) enqueue(a streams.AccountID, l streams.Lane, n int) []streams.MessageID {
	h.t.Helper()
	var all []streams.MessageID
	shard := h.shards.Of(a)
	for range n {
		m := h.ids.Message()
		all = append(all, m)
		h.publish(streams.EnqueueSubject(shard, a, l), event.Enqueued{ID: m, Phone: "+40700000000", Text: event.Private("text of " + m.String()), Month: "2026-11"})
	}
	return all
}

func (h *harness) publish(subject string, e event.Event) uint64 {
	h.t.Helper()
	m, err := event.Message(subject, e)
	if err != nil {
		h.t.Fatal(err)
	}
	ack, err := h.bus.JS.PublishMsg(context.Background(), m)
	if err != nil {
		h.t.Fatal(err)
	}
	return ack.Sequence
}

// folded waits for what is accepted, as a list does: a pull gives what is folded, if there is anything.
func (h *harness) folded(a streams.AccountID) {
	h.t.Helper()
	call[request.Listed](h, request.DispatcherList(h.shards.Of(a)), request.List{Account: a, Limit: 1})
}

// publishLater publishes without waiting for the answer; await does that.
func (h *harness) publishLater(subject string, e event.Event) {
	h.t.Helper()
	m, err := event.Message(subject, e)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.bus.JS.PublishMsgAsync(m, jetstream.WithStallWait(10*time.Second)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) await() { <-h.bus.JS.PublishAsyncComplete() }

// status reads all that the STATUS stream of shard 0 holds.
func (h *harness) status() []*jetstream.RawStreamMsg {
	h.t.Helper()
	stream, err := h.bus.JS.Stream(context.Background(), streams.StatusStream(0))
	if err != nil {
		h.t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(context.Background(), seq)
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func call[A, Q any](h *harness, subject string, q Q) A {
	h.t.Helper()
	// Generous: a busy machine may be slow, and a dispatcher that just started
	// has no responder yet.
	for attempt := 0; ; attempt++ {
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		a, err := bus.Call[A](ctx, h.bus, subject, q)
		cancel()
		if err == nil {
			return a
		}
		if attempt == 4000 {
			h.t.Fatalf("call %s: %v", subject, err)
		}
		time.Sleep(5 * time.Millisecond) // until somebody answers
	}
}

// phone is what a pull says of its phone in most tests.
func phone(a streams.AccountID, name string, limit int) request.Pull {
	q := request.Pull{
		Account: a, Name: name, Limit: limit,
		Lease: streams.DefaultLease, Attempts: streams.DefaultAttempts, Policy: streams.Retry,
	}
	if name != "" {
		q.Device = streams.DeviceIDOf(a, name)
	}
	return q
}

func (h *harness) pull(q request.Pull) []streams.MessageID {
	h.t.Helper()
	page := call[request.Pulled](h, request.DispatcherPull(h.shards.Of(q.Account)), q)
	got := []streams.MessageID{}
	for _, m := range page.Messages {
		e, err := event.Decode[event.Enqueued](m.Body)
		if err != nil {
			h.t.Fatal(err)
		}
		if want := "text of " + m.ID.String(); e.ID != m.ID || e.Text.Reveal() != want {
			h.t.Errorf("message %s came with the body of %s", m.ID, e.ID)
		}
		got = append(got, m.ID)
	}
	return got
}

func (h *harness) report(a streams.AccountID, name string, state streams.State, ids ...streams.MessageID) []request.Change {
	h.t.Helper()
	e := event.Reported{Name: name}
	if name != "" {
		e.Device = streams.DeviceIDOf(a, name)
	}
	for _, id := range ids {
		e.Messages = append(e.Messages, event.Report{ID: id, State: state})
	}
	shard := h.shards.Of(a)
	seq := h.publish(streams.ReportSubject(shard, a), e)
	return call[request.Changed](h, request.DispatcherChanged(shard), request.ChangedBy{
		Account: a, Device: e.Device, Seq: seq, Messages: ids,
	}).Messages
}

func (h *harness) show(a streams.AccountID, m streams.MessageID) request.Shown {
	h.t.Helper()
	return call[request.Shown](h, request.DispatcherShow(h.shards.Of(a)), request.Show{ID: m})
}

func (h *harness) state(a streams.AccountID, m streams.MessageID) streams.State {
	h.t.Helper()
	got := h.show(a, m)
	if got.Message == nil {
		h.t.Fatalf("message %s is unknown", m)
	}
	return got.Message.State
}

// dump gives a shard's projection in words.
func (h *harness) dump(dir string, shard streams.Shard) string {
	h.t.Helper()
	var out bytes.Buffer
	if err := dispatcher.DumpFile(&out, fmt.Sprintf("%s/dispatcher-%s.db", dir, shard)); err != nil {
		h.t.Fatal(err)
	}
	return out.String()
}

func sequence[T any](parts ...[]T) []T {
	var all []T
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}
