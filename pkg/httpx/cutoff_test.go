package httpx_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// What a handler sees through goes on when its client hangs up, and ends when the server cuts requests off: it is
// answered then, and the stop is no error.
func TestServe_CutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		through := make(chan time.Duration, 2)
		begun := time.Now()
		l, stop, done := serve(t, httpx.ServerOptions{
			Grace: 4 * time.Second,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx := httpx.Through(r.Context())
				made, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				<-made.Done()
				if ctx.Err() == nil || httpx.Stopping(ctx) == nil {
					t.Error("a context that has ended without an error, or has lost its values")
				}
				through <- time.Since(begun)
				w.WriteHeader(http.StatusServiceUnavailable)
			}),
		})
		client := l.Client()
		defer client.CloseIdleConnections()
		waits := get(client, "/")
		conn, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		conn.Close() // hangs up
		time.Sleep(time.Second)
		stop()
		if got := <-waits; got.err != nil || got.status != http.StatusServiceUnavailable {
			t.Errorf("got %+v, want 503", got)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		for range 2 {
			if got := <-through; got != 5*time.Second {
				t.Errorf("ended after %v, want the second before the stop and the 4 s of grace", got)
			}
		}
	})
}

func TestThrough_Outside(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if through := httpx.Through(ctx); through.Err() != nil || through.Done() != nil {
		t.Error("outside a server it ends with its context")
	}
}
