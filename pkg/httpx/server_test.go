package httpx_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// serve starts a server in the bubble and returns its listener, a stop and the channel of Serve's answer.
func serve(t *testing.T, o httpx.ServerOptions) (*httpx.Memory, context.CancelFunc, <-chan error) {
	t.Helper()
	l := httpx.NewMemory()
	o.Listener = l
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- httpx.Serve(ctx, o) }()
	return l, stop, done
}

type answer struct {
	status int
	body   string
	err    error
	took   time.Duration
}

func get(c *http.Client, path string) <-chan answer {
	got := make(chan answer, 1)
	go func() {
		start := time.Now()
		resp, err := c.Get("http://memory" + path)
		if err != nil {
			got <- answer{err: err, took: time.Since(start)}
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		got <- answer{resp.StatusCode, string(b), err, time.Since(start)}
	}()
	return got
}

func after(d time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d):
			_, _ = io.WriteString(w, "done")
		case <-r.Context().Done():
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
}

func TestServeFinishesWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop, done := serve(t, httpx.ServerOptions{Handler: after(3 * time.Second)})
		client := l.Client()
		defer client.CloseIdleConnections()
		slow := get(client, "/")
		synctest.Wait()
		start := time.Now()
		stop()

		if got := <-slow; got.err != nil || got.status != http.StatusOK || got.body != "done" {
			t.Errorf("the request in flight: got %+v, want 200 done", got)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if took := time.Since(start); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("the stop took %s, want the request's 3 s and at most its grace", took)
		}
		if got := <-get(client, "/"); got.err == nil {
			t.Errorf("a request after the stop was answered: %+v", got)
		}
	})
}

func TestServeCutsOffAfterGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		l, stop, done := serve(t, httpx.ServerOptions{Handler: after(time.Hour), Log: zap.New(core), WriteTimeout: 2 * time.Hour})
		client := l.Client()
		defer client.CloseIdleConnections()
		slow := get(client, "/")
		synctest.Wait()
		stop()

		if got, want := <-slow, (answer{status: http.StatusServiceUnavailable, took: 4 * time.Second}); got != want {
			t.Errorf("got %+v, want the handler's answer to the end of its context: %+v", got, want)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if got, want := logs.FilterMessage("requests cut off").Len(), 1; got != want {
			t.Errorf("got %d warnings, want %d", got, want)
		}
	})
}

func TestServeClosesWhatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop, done := serve(t, httpx.ServerOptions{ReadTimeout: time.Hour, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // deaf to its context
		})})
		conn, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if got, want := time.Since(start), 4*time.Second+500*time.Millisecond; got != want {
			t.Errorf("the stop took %s, want %s", got, want)
		}
	})
}

func TestServeNamesHandlersThatDoNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		l, stop, done := serve(t, httpx.ServerOptions{Grace: time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })})
		client := l.Client()
		defer client.CloseIdleConnections()
		slow := get(client, "/")
		synctest.Wait()
		stop()
		if got, want := fmt.Sprint(<-done), "stop http: 1 requests do not end"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		close(release)
		<-slow
	})
}

func TestServeStopsLongPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop, done := serve(t, httpx.ServerOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-httpx.Stopping(r.Context()):
				_, _ = io.WriteString(w, "stopping")
			case <-time.After(30 * time.Second):
			}
		})})
		client := l.Client()
		defer client.CloseIdleConnections()
		poll := get(client, "/")
		synctest.Wait()
		stop()
		if got := <-poll; got.body != "stopping" || got.took != 0 {
			t.Errorf("got %+v, want an answer at once", got)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	if httpx.Stopping(t.Context()) != nil {
		t.Error("Stopping outside a server is not nil")
	}
}

// A connection on which nothing was sent, or one that waits for its next request, must not use up the grace.
func TestServeDropsIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop, done := serve(t, httpx.ServerOptions{Handler: after(0)})
		fresh, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer fresh.Close()
		client := l.Client()
		defer client.CloseIdleConnections()
		if got := <-get(client, "/"); got.err != nil {
			t.Fatal(got.err)
		}
		start := time.Now()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the stop took %s", took)
		}
		if _, err := fresh.Read(make([]byte, 1)); err == nil {
			t.Error("the fresh connection is still open")
		}
	})
}

func TestServeTimeouts(t *testing.T) {
	tests := []struct {
		name, send string
		want       time.Duration // until the connection is closed
	}{
		{"no request", "", 5 * time.Second},
		{"slow header", "GET / HTTP/1.1\r\nHost: x\r\n", 5 * time.Second},
		{"slow body", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", 15 * time.Second},
		{"idle", "GET /quick HTTP/1.1\r\nHost: x\r\n\r\n", 120 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, stop, done := serve(t, httpx.ServerOptions{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
				})})
				conn, err := l.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				start := time.Now()
				if _, err := io.WriteString(conn, tt.send); err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, conn) // until the server closes
				got := time.Since(start).Truncate(time.Second)
				if got != tt.want {
					t.Errorf("closed after %s, want %s", got, tt.want)
				}
				stop()
				if err := <-done; err != nil {
					t.Errorf("Serve: %v", err)
				}
			})
		})
	}
}

func TestServeRefusesLongHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop, done := serve(t, httpx.ServerOptions{Handler: after(0)})
		for size, want := range map[int]int{15 << 10: http.StatusOK, 64 << 10: http.StatusRequestHeaderFieldsTooLarge} {
			conn, err := l.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			go func() { // the server stops reading in the middle
				_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("a", size)+"\r\n\r\n")
			}()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != want {
				t.Errorf("%d bytes of header: got %d, want %d", size, resp.StatusCode, want)
			}
			_, _ = resp.Body.Close(), conn.Close()
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestServeOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- httpx.Serve(ctx, httpx.ServerOptions{Listener: l, Handler: after(0)}) }()
	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	stop()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeFailsWithItsListener(t *testing.T) {
	l := httpx.NewMemory()
	_ = l.Close()
	err := httpx.Serve(t.Context(), httpx.ServerOptions{Listener: l, Handler: after(0)})
	if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "serve http: ") {
		t.Errorf("got %v, want serve http: %v", err, net.ErrClosed)
	}
	if _, err := l.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial after Close: got %v, want %v", err, net.ErrClosed)
	}
}

// Of too many connections those are closed with which the least is lost, and new ones where there is none of these.
func TestServeBoundsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 6
		l, stop, done := serve(t, httpx.ServerOptions{MaxConnections: most, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			who, slow := strings.CutPrefix(r.URL.Path, "/slow")
			httpx.Admitted(r.Context(), strings.Trim(who, "/"))
			if slow {
				time.Sleep(time.Minute)
			}
			w.WriteHeader(http.StatusNoContent)
		}), WriteTimeout: time.Hour, ReadHeaderTimeout: time.Hour})
		type client struct {
			net.Conn
			name string
		}
		var all []client
		dial := func(name, request string) {
			conn, err := l.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, request) // which one that is closed at once does not take
			if strings.HasPrefix(name, "idle") {
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
			}
			all = append(all, client{conn, name})
			synctest.Wait()
		}
		get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n" }
		open := func() (names []string) {
			for _, c := range all {
				_ = c.SetReadDeadline(time.Now())
				if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
					names = append(names, c.name)
				}
			}
			return names
		}
		dial("nothing asked", "GET / HTTP/1.1\r\n")
		dial("idle stranger", get("/"))
		dial("slow stranger", get("/slow"))
		dial("idle account", get("/acme"))
		dial("account", get("/slow/acme"))
		dial("other account", get("/slow/other"))
		for i, want := range []string{
			"idle stranger,slow stranger,idle account,account,other account,0",
			"slow stranger,idle account,account,other account,0,1",
			"idle account,account,other account,0,1,2",
			"account,other account,0,1,2,3",
		} {
			dial(fmt.Sprint(i), get([]string{"/slow/a", "/slow/b", "/slow/c", "/slow/d"}[i]))
			if got := strings.Join(open(), ","); got != want {
				t.Fatalf("after %d more: got %s open, want %s", i+1, got, want)
			}
		}
		// All work for different accounts: the new one is closed.
		dial("late", get("/slow/late"))
		if got, want := strings.Join(open(), ","), "account,other account,0,1,2,3"; got != want {
			t.Errorf("got %s open, want %s", got, want)
		}
		for _, c := range all {
			_ = c.Close()
		}
		time.Sleep(time.Minute) // what the handlers take
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// Nobody has all connections: a sender with half of them gives one to the next.
func TestServeSharesConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop, done := serve(t, httpx.ServerOptions{MaxConnections: 4, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			httpx.Admitted(r.Context(), r.URL.Path)
			time.Sleep(time.Minute)
		}), WriteTimeout: time.Hour})
		var all []<-chan answer
		client := l.Client()
		defer client.CloseIdleConnections()
		for _, path := range []string{"/greedy", "/greedy", "/greedy", "/other", "/third"} {
			all = append(all, get(client, path))
			synctest.Wait()
		}
		answered := 0
		for i, one := range all {
			got := <-one
			if got.err == nil {
				answered++
			} else if i > 2 {
				t.Errorf("request %d: got %v, want an answer", i, got.err)
			}
		}
		if answered != 4 {
			t.Errorf("got %d answers, want 4", answered)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// Who does not read an answer gets no more of it after a minute.
func TestServeSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan time.Time, 1)
		l, stop, done := serve(t, httpx.ServerOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 1<<20))
			ended <- time.Now()
		})})
		conn, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		begun := time.Now()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if got, want := (<-ended).Sub(begun), time.Minute; got != want {
			t.Errorf("the handler was done after %s, want %s", got, want)
		}
		if n, _ := io.Copy(io.Discard, conn); n >= 1<<20 {
			t.Errorf("got %d bytes in the end", n)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}
