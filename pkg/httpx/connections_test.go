package httpx_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// networks is a listener that says where its connections come from.
type networks struct {
	*httpx.Memory
	from chan string
}

type named struct {
	net.Conn
	from net.Addr
}

func (n named) RemoteAddr() net.Addr { return n.from }

func (n networks) Accept() (net.Conn, error) {
	conn, err := n.Memory.Accept()
	if err != nil {
		return nil, err
	}
	return named{conn, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(<-n.from))}, nil
}

// A network has no more connections than it leaves to others, and one that fills its share closes its own idle ones; a
// proxy's are many clients'.
func TestServeBoundsConnections_OfANetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := networks{httpx.NewMemory(), make(chan string, 1)}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- httpx.Serve(ctx, httpx.ServerOptions{
				Listener: l, MaxConnections: 24, WriteTimeout: time.Hour, Proxies: httpx.Proxies{netip.MustParsePrefix("10.0.0.0/8")},
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/slow" {
						time.Sleep(time.Minute)
					}
				}),
			})
		}()
		// open says how many of so many new connections are served.
		open := func(from, path string, n int) (served int) {
			for range n {
				l.from <- from
				conn, err := l.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = conn.Close() })
				answered := make(chan bool, 1)
				go func() {
					_, _ = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n") // fails where it is closed at once
					resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
					answered <- err == nil && resp.Body.Close() == nil
				}()
				synctest.Wait()
				select {
				case ok := <-answered:
					if ok {
						served++
					}
				default:
					served++ // it is at work
				}
			}
			return served
		}
		for _, step := range []struct {
			from, path string
			open, want int
		}{
			{"192.0.2.1:1", "/slow", 20, 12},
			{"[2001:db8::1]:1", "/slow", 20, 6},
			{"[2001:db8::2]:1", "/slow", 5, 0}, // the same network
			{"198.51.100.1:1", "/", 3, 3},
			{"198.51.100.1:1", "/", 3, 3}, // in the place of idle ones
			{"198.51.100.2:1", "/", 1, 1},
			{"10.1.1.1:1", "/", 2, 2},
			{"10.1.1.1:1", "/slow", 30, 6}, // in the place of all that are idle
		} {
			if got := open(step.from, step.path, step.open); got != step.want {
				t.Errorf("%s: got %d of %d connections served, want %d", step.from, got, step.open, step.want)
			}
		}
		time.Sleep(2 * time.Minute)
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}
