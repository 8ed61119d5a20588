package quota

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// slow is a connection to the engine on which nothing arrives, from the first accepted message on, while it is held.
type slow struct {
	w    *world
	mu   sync.Mutex
	held chan struct{} // closed when it is let go; nil while it is not held
}

func (s *slow) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = make(chan struct{})
}

func (s *slow) letGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		close(s.held)
		s.held = nil
	}
}

// InProcessConn makes it a nats.InProcessConnProvider.
func (s *slow) InProcessConn() (net.Conn, error) {
	conn, err := s.w.engine.InProcessConn()
	return &slowConn{conn, s}, err
}

type slowConn struct {
	net.Conn
	s *slow
}

func (c *slowConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.s.mu.Lock()
	held := c.s.held
	c.s.mu.Unlock()
	if held != nil && bytes.Contains(p[:n], []byte("sms.enqueue.")) {
		<-held
	}
	return n, err
}

// startSlow is start over a slow connection.
func (w *world) startSlow(name string) (*instance, *slow) {
	w.t.Helper()
	s := &slow{w: w}
	key, err := nats.NkeyOptionFromSeed(filepath.Join(w.dir, "keys", "engine.nk"))
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := nats.Connect("", key, nats.InProcessServer(s), nats.ReconnectBufSize(-1), nats.MaxReconnects(-1))
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := bus.New(conn)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.MkdirAll(w.projections(name), 0o700); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	i := &instance{w: w, name: name, bus: b, cancel: cancel, done: make(chan error, 1), gauges: prometheus.NewRegistry()}
	i.quota = New(DefaultConfig(), Deps{
		Deps:   service.Deps{Bus: b, Dir: w.projections(name), Log: w.log(), Metrics: i.gauges, Now: time.Now},
		Shards: w.shards,
	})
	go func() { i.done <- i.quota.Run(ctx) }()
	w.t.Cleanup(i.kill)
	w.t.Cleanup(s.letGo) // before
	return i, s
}

// The room of a grant that came to its end is not given again while its messages may be stored and not counted yet.
func TestGrantEndsWhenItsEventsAreFolded(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		i, connection := w.startSlow("a")
		w.await("a leader", w.granting)
		given := w.mustReserve(alice, 5, 10)
		time.Sleep(request.GrantTTL - 500*time.Millisecond)
		connection.hold()
		w.publish(alice, 5, given.Month, given.ID)
		time.Sleep(2500 * time.Millisecond)
		// Nobody can ask over the connection, so the ledger itself is asked.
		if got, err := i.quota.ledger.usage(alice); err != nil || got.Used != 5 {
			t.Errorf("stored and not folded: got %d used, %v, want 5", got.Used, err)
		}
		connection.letGo()
		i.folded()
		w.mustUse(alice, 5)
		time.Sleep(2 * time.Second)
		w.mustUse(alice, 5)
		i.mustHaveOpen(0)
	})
}
