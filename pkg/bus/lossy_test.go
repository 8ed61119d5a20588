package bus_test

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
)

// lossy is a bus whose connection can break just when the engine answers.
type lossy struct {
	*bus.Bus
	server *natsd.Server
	losses atomic.Int32 // answers still to lose, each with its connection
	silent atomic.Bool  // lose answers without breaking the connection
	deaf   atomic.Int32 // publishes and questions still to lose
	late   atomic.Int64 // how long the next answer to a leader read is held, in ns
}

func startLossy(t *testing.T, dir string) *lossy {
	t.Helper()
	return startBy(t, dir, func(l *lossy) nats.Option { return nats.InProcessServer(l) })
}

// startAcross is startLossy over what the bus takes for a network.
func startAcross(t *testing.T, dir string) *lossy {
	t.Helper()
	return startBy(t, dir, func(l *lossy) nats.Option { return nats.SetCustomDialer(l) })
}

func startBy(t *testing.T, dir string, way func(*lossy) nats.Option) *lossy {
	t.Helper()
	server, err := natsd.Start(natsd.Options{Dir: dir, InProcessOnly: true, Durability: "process"})
	if err != nil {
		t.Fatal(err)
	}
	l := &lossy{server: server}
	key, err := nats.NkeyOptionFromSeed(filepath.Join(dir, "keys", "engine.nk"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect("127.0.0.1", key, way(l), nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if l.Bus, err = bus.New(conn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
	})
	return l
}

// loseAnswers loses the next n answers to publishes, and the connection with each.
func (l *lossy) loseAnswers(n int32) { l.losses.Store(n) }

func (l *lossy) waitConnected(t *testing.T) {
	t.Helper()
	connected := l.Conn.StatusChanged(nats.CONNECTED)
	defer l.Conn.RemoveStatusListener(connected)
	if !l.Conn.IsConnected() {
		<-connected
	}
}

// InProcessConn makes it a nats.InProcessConnProvider.
func (l *lossy) InProcessConn() (net.Conn, error) {
	conn, err := l.server.InProcessConn()
	return &lossyConn{conn, l}, err
}

// Dial makes it a nats.CustomDialer.
func (l *lossy) Dial(string, string) (net.Conn, error) { return l.InProcessConn() }

type lossyConn struct {
	net.Conn
	l *lossy
}

func (c *lossyConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if bytes.Contains(p[:n], []byte("stream_msg_get_response")) {
			time.Sleep(time.Duration(c.l.late.Swap(0)))
		}
		// Answers to publishes, and no others, hold this.
		if !bytes.Contains(p[:n], []byte(`"stream":"S"`)) || c.l.losses.Load() == 0 {
			return n, err
		}
		if c.l.silent.Load() {
			c.l.losses.Add(-1)
			continue
		}
		c.l.losses.Add(-1)
		c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
}

func (c *lossyConn) Write(p []byte) (int, error) {
	if c.l.deaf.Load() > 0 && bytes.Contains(p, []byte("PUB ")) {
		c.l.deaf.Add(-1)
		return len(p), nil
	}
	return c.Conn.Write(p)
}
