package bustest

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
)

// Network is between parts and the engine, and a test can stop it. What is sent after that is kept, and arrives when the
// test says so, as if it had been in the buffers of a real network.
type Network struct {
	dial func() (net.Conn, error)

	mu    sync.Mutex
	links map[*link]bool
}

// NewNetwork makes a network that reaches the engine by dial.
func NewNetwork(dial func() (net.Conn, error)) *Network {
	return &Network{dial: dial, links: map[*link]bool{}}
}

// InProcessConn makes it a nats.InProcessConnProvider.
func (n *Network) InProcessConn() (net.Conn, error) {
	part, end := net.Pipe()
	if err := n.link(end); err != nil {
		return nil, err
	}
	return part, nil
}

// Dial makes it a nats.CustomDialer.
func (n *Network) Dial(string, string) (net.Conn, error) { return n.InProcessConn() }

// Listen gives an address of 127.0.0.1 at which parts in other processes reach the engine through the network, until the
// test ends.
func (n *Network) Listen(t testing.TB) (address string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			part, err := listener.Accept()
			if err != nil {
				return
			}
			if n.link(part) != nil {
				part.Close()
			}
		}
	})
	t.Cleanup(func() {
		listener.Close()
		accepting.Wait()
		for _, l := range n.Stop() {
			l.part.Close()
			l.engine.Close()
		}
	})
	return listener.Addr().String()
}

// link is one connection of a part.
type link struct {
	part, engine net.Conn

	mu      sync.Mutex
	stopped bool
	stopAt  []byte        // stop when the part sends this; nil: do not
	kept    bytes.Buffer  // of what the part has sent since
	more    chan struct{} // closed when more is kept
}

func (n *Network) link(part net.Conn) error {
	engine, err := n.dial()
	if err != nil {
		return err
	}
	l := &link{part: part, engine: engine, more: make(chan struct{})}
	n.mu.Lock()
	n.links[l] = true
	n.mu.Unlock()
	go func() {
		l.carryUp()
		n.mu.Lock()
		delete(n.links, l)
		n.mu.Unlock()
	}()
	go l.carryDown()
	return nil
}

// carryUp carries what the part sends, until it ends the connection.
func (l *link) carryUp() {
	for buffer := make([]byte, 32<<10); ; {
		n, err := l.part.Read(buffer)
		if !l.keep(buffer[:n]) {
			if _, sendErr := l.engine.Write(buffer[:n]); sendErr != nil {
				l.part.Close()
			}
			if err != nil {
				l.engine.Close()
			}
		}
		if err != nil {
			return
		}
	}
}

// keep keeps what a part sends on a stopped link. It is false if the link has not stopped.
func (l *link) keep(sent []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopAt != nil && bytes.Contains(sent, l.stopAt) {
		l.stopped = true
	}
	if !l.stopped {
		return false
	}
	l.kept.Write(sent)
	close(l.more)
	l.more = make(chan struct{})
	return true
}

func (l *link) carryDown() {
	for buffer := make([]byte, 32<<10); ; {
		n, err := l.engine.Read(buffer)
		l.mu.Lock()
		stopped := l.stopped
		l.mu.Unlock()
		if !stopped {
			if _, sendErr := l.part.Write(buffer[:n]); sendErr != nil {
				l.engine.Close()
			}
		}
		if err != nil {
			l.part.Close()
			return
		}
	}
}

// Stopped are connections on which nothing arrives any more.
type Stopped []*link

// Stop stops all connections. Later ones work.
func (n *Network) Stop() Stopped {
	return n.each(func(l *link) { l.stopped = true })
}

// StopAt stops each of the present connections once its part sends something that contains text.
func (n *Network) StopAt(text string) Stopped {
	return n.each(func(l *link) { l.stopAt = []byte(text) })
}

func (n *Network) each(f func(*link)) Stopped {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all Stopped
	for l := range n.links {
		l.mu.Lock()
		f(l)
		l.mu.Unlock()
		all = append(all, l)
	}
	return all
}

// Await waits until the parts have sent something that contains text.
func (s Stopped) Await(t testing.TB, text string) {
	t.Helper()
	found := make(chan struct{}, len(s))
	done := make(chan struct{})
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer close(done)
	for _, l := range s {
		waiting.Go(func() {
			for {
				l.mu.Lock()
				has, more := bytes.Contains(l.kept.Bytes(), []byte(text)), l.more
				l.mu.Unlock()
				if has {
					found <- struct{}{}
					return
				}
				select {
				case <-more:
				case <-done:
					return
				}
			}
		})
	}
	select {
	case <-found:
	case <-t.Context().Done():
		t.Fatalf("%q was not sent", text)
	}
}

// Cut ends the connections for the parts, which connect again. The engine does not notice.
func (s Stopped) Cut() {
	for _, l := range s {
		l.part.Close()
	}
}

// Arrive gives the engine what the parts had sent, and ends the connections.
func (s Stopped) Arrive() {
	for _, l := range s {
		l.part.Close()
		l.mu.Lock()
		kept := bytes.Clone(l.kept.Bytes())
		l.kept.Reset()
		l.mu.Unlock()
		_, _ = l.engine.Write(kept) // it may have given up on the connection
		l.engine.Close()
	}
}
