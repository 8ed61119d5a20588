package httpx_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// limited serves posts through a limiter: the path says who posts, and the answer how many bytes came.
func limited(t *testing.T, g *httpx.Limiter) (l *httpx.Memory, stop func()) {
	l, cancel, done := serve(t, httpx.ServerOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, place, err := g.Enter(w, r, 4<<20, r.URL.Path)
		if err != nil {
			status := http.StatusBadRequest
			if fault.Is(err, fault.Unavailable) {
				status = http.StatusServiceUnavailable
			}
			w.WriteHeader(status)
			return
		}
		defer place.Leave()
		_, _ = fmt.Fprint(w, len(body))
	})})
	return l, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

// body is a post on its way.
type body struct {
	conn    net.Conn
	answers chan string // its status and what it says, or that there was none
}

// post announces a body of so many bytes.
func post(t *testing.T, l *httpx.Memory, who string, length int) *body {
	t.Helper()
	conn, err := l.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &body{conn, make(chan string, 1)}
	go func() {
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			b.answers <- "no answer"
			return
		}
		said, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		b.answers <- strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", string(said)))
	}()
	if _, err := fmt.Fprintf(conn, "POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", who, length); err != nil {
		t.Fatal(err)
	}
	return b
}

var zeros [4 << 20]byte

// send sends so many bytes, so many a second: 0 is all at once.
func (b *body) send(bytes, aSecond int) {
	if aSecond == 0 {
		aSecond = bytes
	}
	for ; bytes > 0; bytes -= aSecond {
		if _, err := b.conn.Write(zeros[:min(bytes, aSecond)]); err != nil {
			return
		}
		if aSecond < bytes {
			time.Sleep(time.Second)
		}
	}
}

// A body may take its time while it comes, and is answered; one that does not come is cut off.
func TestLimiter_SlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := limited(t, httpx.NewLimiter(16, 16<<20))
		for _, test := range []struct {
			length, send, aSecond int
			want                  string
			after                 time.Duration
		}{
			{160_000, 160_000, 2000, "200 160000", 79 * time.Second}, // a thousand messages
			{1 << 20, 1 << 20, 300, "200 1048576", 3495 * time.Second},
			{160_000, 160_000, 1, "400", 15 * time.Second},
			{160_000, 159_999, 0, "400", 15 * time.Second},
			{160_000, 80_000, 2000, "400", 54 * time.Second}, // it stops in the middle
			{4000, 4000, 100, "400", 15 * time.Second},
		} {
			begun := time.Now()
			b := post(t, l, "shop", test.length)
			go b.send(test.send, test.aSecond)
			got := <-b.answers
			if took := time.Since(begun).Truncate(time.Second); got != test.want || took < test.after-time.Second || took > test.after+time.Second {
				t.Errorf("%d of %d bytes, %d a second: got %s after %v, want %s after %v", test.send, test.length, test.aSecond, got, took, test.want, test.after)
			}
			_ = b.conn.Close()
			time.Sleep(2 * time.Second) // it ends with its next write
		}
		stop()
	})
}

// One tenant's half-sent bodies keep nobody out, however many there are; and a slow one that comes is not the one that
// makes room.
func TestLimiter_HalfSentBodies(t *testing.T) {
	for _, hostile := range []struct {
		what   string
		names  int // of the senders of half-sent bodies
		bodies int // of each
		size   int
	}{{"one tenant", 1, 40, 4 << 20}, {"five tenants", 5, 10, 4 << 20}, {"a crowd of strangers", 500, 1, 64 << 10}} {
		t.Run(hostile.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, stop := limited(t, httpx.NewLimiter(512, 16<<20))
				slow := post(t, l, "phone", 160_000)
				go slow.send(160_000, 2000)
				for i := range hostile.names * hostile.bodies {
					b := post(t, l, fmt.Sprint("hostile", i%hostile.names), hostile.size)
					defer b.conn.Close()
					go b.send(hostile.size-1, 0)
					if i%100 == 99 { // a crowd that fills all within one second takes a place from who comes slower than that
						time.Sleep(time.Second)
					}
				}
				for range 10 { // while the half-sent ones are there
					time.Sleep(time.Second)
					for name, size := range map[string]int{"shop": 300, "clinic": 60_000} {
						b := post(t, l, name, size)
						b.send(size, 0)
						if got, want := <-b.answers, fmt.Sprint("200 ", size); got != want {
							t.Errorf("%s posts %d bytes: got %s, want %s", name, size, got, want)
						}
						_ = b.conn.Close()
					}
				}
				if got := <-slow.answers; got != "200 160000" {
					t.Errorf("a slow line: got %s, want its body taken", got)
				}
				_ = slow.conn.Close()
				time.Sleep(time.Minute)
				stop()
			})
		})
	}
}
