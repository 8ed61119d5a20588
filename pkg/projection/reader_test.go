package projection_test

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

func TestCutConnections(t *testing.T) {
	dir := t.TempDir()
	server, direct := startListening(t, dir)
	wire := newWire(t, server.URL())
	b := dialThrough(t, dir, wire)
	makeStreams(t, direct)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{BatchMax: 8})
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 6 {
		publishMany(t, direct, 100)
		// The wire is cut while the reader is somewhere in those.
		f.await(orders, lastSeq(t, direct, orders)-rnd.Uint64N(100))
		wire.cut()
	}
	f.catchUp(direct)
	if got, want := dump(t, f.File), foldAnew(t, direct, tally{}); got != want {
		t.Error("dump after cuts differs from a fold in one go")
	}
}

// An engine that comes back as it was is read on; one whose data was set back
// and which then took other events is rebuilt.
func TestEngineRestarts(t *testing.T) {
	dir, backup := t.TempDir(), filepath.Join(t.TempDir(), "backup")
	server, direct := startListening(t, dir)
	wire := newWire(t, server.URL())
	b := dialThrough(t, dir, wire)
	makeStreams(t, direct)
	publishMany(t, direct, 10)
	restart := func(between func()) {
		server.Stop()
		between()
		server, direct = startListening(t, dir)
		wire.to(server.URL())
	}
	restart(func() {
		if err := os.CopyFS(backup, os.DirFS(filepath.Join(dir, "engine"))); err != nil {
			t.Fatal(err)
		}
	})
	replaced := make(chan struct{}, 9)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{
		Replaced: func(*bolt.Tx) error { replaced <- struct{}{}; return nil },
	})
	<-replaced
	publish(t, direct, "ORDERS.a", "of the lost future")
	f.catchUp(direct)

	restart(func() {})
	publish(t, direct, "ORDERS.b", "goes on")
	f.catchUp(direct)
	if len(replaced) > 0 {
		t.Error("rebuilt although the streams are the same")
	}

	restart(func() {
		engine := filepath.Join(dir, "engine")
		if err := os.RemoveAll(engine); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(engine, os.DirFS(backup)); err != nil {
			t.Fatal(err)
		}
	})
	publishMany(t, direct, 10)
	<-replaced
	ready(t, f)
	if got, want := dump(t, f.File), foldAnew(t, direct, tally{}); got != want {
		t.Errorf("after the set-back got\n%swant\n%s", got, want)
	}
}

// A pull is bounded in bytes too, so that a backlog of large events fits into
// memory.
func TestLargeEvents(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	for range 30 {
		publish(t, b, "ORDERS.a", strings.Repeat("x", 900<<10))
	}
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
	f.catchUp(b)
	if got := counts(t, f.File)["ORDERS.a"]; got != 30 {
		t.Errorf("got %d events, want 30", got)
	}
}

func TestConsumerDeleted(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	publish(t, b, "ORDERS.a", "1")
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
	f.catchUp(b)
	if err := b.JS.DeleteConsumer(t.Context(), orders, consumerOf(t, b, orders)); err != nil {
		t.Fatal(err)
	}
	f.await(orders, publish(t, b, "ORDERS.a", "2"))
}

// A consumer that the server says is fine and that delivers nothing is given
// up. The time is simulated.
func TestStuckConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.New(t)
		makeStreams(t, b)
		publish(t, b, "ORDERS.a", "1")
		f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
		f.catchUp(b)
		began := time.Now()
		_, err := b.JS.PauseConsumer(t.Context(), orders, consumerOf(t, b, orders), began.Add(24*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		seq := publish(t, b, "ORDERS.a", "2")
		if err := f.Wait(t.Context(), orders, seq); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Minute {
			t.Errorf("a stuck consumer was given up after %v", took)
		}
	})
}

// A consumer set back delivers again what was applied.
func TestConsumerSetBack(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	publishMany(t, b, 10)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
	f.catchUp(b)
	_, err := b.JS.ResetConsumer(t.Context(), orders, consumerOf(t, b, orders))
	if err != nil {
		t.Fatal(err)
	}
	publishMany(t, b, 10)
	f.catchUp(b)
	if got, want := dump(t, f.File), foldAnew(t, b, tally{}); got != want {
		t.Error("dump after the set-back differs from a fold in one go")
	}
}

// What is left on the server after Run is nothing.
func TestConsumersGivenBack(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	deleted, err := b.Conn.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.DELETED.>")
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
	ready(t, f)
	f.stop()
	for range streams {
		if _, err := deleted.NextMsgWithContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func consumerOf(t *testing.T, b *bus.Bus, stream string) string {
	t.Helper()
	s, err := b.JS.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	names := s.ConsumerNames(t.Context())
	name := <-names.Name()
	if name == "" {
		t.Fatalf("no consumer: %v", names.Err())
	}
	return name
}

func startListening(t *testing.T, dir string) (*natsd.Server, *bus.Bus) {
	t.Helper()
	server, err := natsd.Start(natsd.Options{Dir: dir, Durability: "process"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	conn, err := server.Connect("direct")
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return server, b
}

// dialThrough connects to the engine on dir by way of a wire.
func dialThrough(t *testing.T, dir string, w *wire) *bus.Bus {
	t.Helper()
	address := filepath.Join(dir, "address")
	if err := os.WriteFile(address, []byte("nats://"+w.listener.Addr().String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conn, err := natsd.Dial(dir, "through the wire")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	b, err := bus.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wire carries connections to a server and can be cut.
type wire struct {
	listener net.Listener
	done     sync.WaitGroup

	mu     sync.Mutex
	target string
	conns  map[net.Conn]bool
}

func newWire(t *testing.T, url string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: listener, conns: map[net.Conn]bool{}}
	w.to(url)
	w.done.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			w.done.Go(func() { w.carry(client) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		w.cut()
		w.done.Wait()
	})
	return w
}

func (w *wire) to(url string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target = strings.TrimPrefix(url, "nats://")
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
}

func (w *wire) carry(client net.Conn) {
	defer client.Close()
	w.mu.Lock()
	target := w.target
	w.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	w.mu.Lock()
	w.conns[client], w.conns[server] = true, true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.conns, client)
		delete(w.conns, server)
	}()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(client, server) // ends when either side is closed
		client.Close()
	}()
	_, _ = io.Copy(server, client)
	server.Close()
	<-back
}

// A request that can never succeed ends Run.
func TestRunFails(t *testing.T) {
	for name, test := range map[string]struct {
		p     tally
		after func(*bus.Bus)
	}{
		"filters overlap":       {tally{subjects: []string{"a", "*"}}, func(*bus.Bus) {}},
		"connection was closed": {tally{}, func(b *bus.Bus) { b.Conn.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			b := bustest.New(t)
			makeStreams(t, b)
			f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, test.p, projection.Options{})
			test.after(b)
			if err := f.fail(); err == nil {
				t.Error("run ended without an error")
			}
		})
	}
}

// A stream that is made late is waited for. The time is simulated.
func TestStreamMadeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.New(t)
		makeStream(t, b, payments)
		f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
		f.await(payments, publish(t, b, "PAYMENTS.a", "1"))
		synctest.Wait() // until all that happens by itself has happened
		makeStream(t, b, orders)
		f.await(orders, publish(t, b, "ORDERS.a", "1"))
		ready(t, f)
	})
}
