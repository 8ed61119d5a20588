package quota

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// world is a deployment in simulated time: a real engine, and whatever
// instances of quota and senders a test starts.
type world struct {
	t      testing.TB
	engine *natsd.Server
	bus    *bus.Bus
	shards streams.Shards
	dir    string
	ids    *streams.IDs
}

func newWorld(t testing.TB, shards streams.Shards) *world {
	dir := t.TempDir()
	engine, b := bustest.Start(t, dir)
	t.Cleanup(engine.Stop)
	d := streams.Deployment{Shards: shards, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}
	if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, engine: engine, bus: b, shards: shards, dir: dir, ids: streams.NewIDs(time.Now, 1, time.Time{})}
}

// log is the test's, but for a fuzz target, to which nothing may be logged.
func (w *world) log() *zap.Logger {
	if _, fuzzing := w.t.(*testing.F); fuzzing {
		return zap.NewNop()
	}
	return zaptest.NewLogger(w.t)
}

func (w *world) connect(name string) *bus.Bus {
	w.t.Helper()
	return w.connectBy(name, w.engine)
}

func (w *world) connectBy(name string, way nats.InProcessConnProvider) *bus.Bus {
	w.t.Helper()
	conn, err := w.engine.ConnectBy(name, way)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := bus.New(conn)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

// await lets time pass until cond holds.
func (w *world) await(what string, cond func() bool) {
	w.t.Helper()
	for begin := time.Now(); !cond(); time.Sleep(100 * time.Millisecond) {
		if time.Since(begin) > 5*time.Minute {
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// instance is a running instance of quota.
type instance struct {
	w      *world
	name   string
	bus    *bus.Bus
	quota  *Quota
	gauges *prometheus.Registry
	cancel context.CancelFunc
	done   chan error
}

// start starts an instance whose projection is kept under its name.
func (w *world) start(name string) *instance {
	w.t.Helper()
	return w.startBy(name, w.engine)
}

func (w *world) startBy(name string, way nats.InProcessConnProvider) *instance {
	w.t.Helper()
	b := w.connectBy("quota "+name, way)
	if err := os.MkdirAll(w.projections(name), 0o700); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	i := &instance{w: w, name: name, bus: b, cancel: cancel, done: make(chan error, 1), gauges: prometheus.NewRegistry()}
	i.quota = New(DefaultConfig(), Deps{
		Deps: service.Deps{
			Bus:     b,
			Dir:     w.projections(name),
			Log:     w.log(),
			Metrics: i.gauges,
			Now:     time.Now,
		},
		Shards: w.shards,
	})
	go func() { i.done <- i.quota.Run(ctx) }()
	w.t.Cleanup(i.kill)
	return i
}

func (w *world) projections(name string) string {
	return filepath.Join(w.dir, "quota-"+name)
}

// stop ends an instance in order: it gives its claim up.
func (i *instance) stop() {
	i.w.t.Helper()
	i.cancel()
	if err := <-i.done; err != nil {
		i.w.t.Errorf("quota %s: %v", i.name, err)
	}
	i.done <- nil
	i.bus.Conn.Close()
}

// kill ends an instance without a word to anybody.
func (i *instance) kill() {
	i.bus.Conn.Close()
	i.cancel()
	if err := <-i.done; err != nil {
		i.w.t.Logf("quota %s, cut off: %v", i.name, err)
	}
	i.done <- nil
}

func (w *world) claims() jetstream.KeyValue {
	w.t.Helper()
	bucket, err := w.bus.JS.KeyValue(w.t.Context(), streams.ClaimsBucket)
	if err != nil {
		w.t.Fatal(err)
	}
	return bucket
}

// renewed renews the leader's claim behind its back, as a renewal does whose answer is lost.
func (w *world) renewed() {
	w.t.Helper()
	claims := w.claims()
	entry, err := claims.Get(w.t.Context(), streams.QuotaClaim)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := claims.Update(w.t.Context(), streams.QuotaClaim, entry.Value(), entry.Revision()); err != nil {
		w.t.Fatal(err)
	}
}

// mustBeTakenOver fails the test unless another leader grants within a second.
func (w *world) mustBeTakenOver() {
	w.t.Helper()
	began := time.Now()
	w.await("the next leader", w.granting)
	if took := time.Since(began); took > time.Second {
		w.t.Errorf("takeover took %v, want less than a second", took)
	}
}

// granting reports whether reservations are answered, in every shard.
func (w *world) granting() bool {
	for _, shard := range w.shards.All() {
		nobody := streams.AccountID(w.shards) + streams.AccountID(shard)
		if _, err := w.usage(nobody); err != nil {
			return false
		}
	}
	return true
}

func (w *world) usage(account streams.AccountID) (request.Usage, error) {
	return bus.Call[request.Usage](w.t.Context(), w.bus, request.QuotaUsage, request.UsageOf{Account: account})
}

func (w *world) mustUse(account streams.AccountID, want int64) {
	w.t.Helper()
	got, err := w.usage(account)
	if err != nil {
		w.t.Fatal(err)
	}
	if got.Used != want {
		w.t.Errorf("used: got %d in %s, want %d", got.Used, got.Month, want)
	}
}

func (w *world) reserve(account streams.AccountID, count int, limit int64) (request.Grant, error) {
	return bus.Call[request.Grant](w.t.Context(), w.bus, request.QuotaReserve, request.Reserve{Account: account, Count: count, Limit: limit})
}

func (w *world) mustReserve(account streams.AccountID, count int, limit int64) request.Grant {
	w.t.Helper()
	given, err := w.reserve(account, count, limit)
	if err != nil {
		w.t.Fatal(err)
	}
	return given
}

// publish stores count messages past every limit.
func (w *world) publish(account streams.AccountID, count int, month, grant string) {
	w.t.Helper()
	for range count {
		msg := w.message(account, month, grant)
		if _, err := w.bus.JS.PublishMsg(w.t.Context(), msg); err != nil {
			w.t.Fatal(err)
		}
	}
}

// message makes an accepted message.
func (w *world) message(account streams.AccountID, month, grant string) *nats.Msg {
	w.t.Helper()
	id := w.ids.Message()
	subject := streams.EnqueueSubject(w.shards.Of(account), account, streams.Lane{})
	msg, err := event.Message(subject, event.Enqueued{ID: id, Phone: "+15550100", Text: "hello", Month: month, Grant: grant})
	if err != nil {
		w.t.Fatal(err)
	}
	msg.Header.Set(jetstream.MsgIDHeader, account.String()+"/"+id.String())
	return msg
}

// stored counts an account's messages in the log.
func (w *world) stored(account streams.AccountID) int64 {
	w.t.Helper()
	stream, err := w.bus.JS.Stream(w.t.Context(), streams.EnqueueStream(w.shards.Of(account)))
	if err != nil {
		w.t.Fatal(err)
	}
	filter := streams.AccountSubjects(w.shards.Of(account), account)
	info, err := stream.Info(w.t.Context(), jetstream.WithSubjectFilter(filter))
	if err != nil {
		w.t.Fatal(err)
	}
	total := uint64(0)
	for _, count := range info.State.Subjects {
		total += count
	}
	return int64(total)
}

func isCode(err error, code string) bool {
	var f *fault.Error
	return errors.As(err, &f) && f.Code == code
}
