// Package httpx is the HTTP server's mechanism: limits, a stop that loses no answer, access log, health, headers.
package httpx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// ServerOptions says what to serve. A zero limit means the default beside it.
type ServerOptions struct {
	Listener net.Listener // required; Serve closes it
	Handler  http.Handler
	Log      *zap.Logger

	ReadHeaderTimeout time.Duration // 5 s
	ReadTimeout       time.Duration // 15 s, headers and body; a Limiter gives a body more while it comes
	WriteTimeout      time.Duration // 60 s, from the headers' end, or that of a body that took its time; above the longest poll
	IdleTimeout       time.Duration // 120 s
	MaxHeaderBytes    int           // 16 KiB
	MaxConnections    int           // 8,192: beyond it those of strangers are closed, idle ones, or else new ones
	Grace             time.Duration // 4 s, for requests in flight at the end
}

// cutOff is how long Serve waits after Grace, once for handlers whose context it has cancelled, and again for those
// whose connection it has closed.
const cutOff = 500 * time.Millisecond

// Serve answers requests until ctx is done. Then it takes no more, gives those in flight Grace to finish, cancels
// the contexts of the others, and returns when all have returned. A stop is no error; a handler that still runs a
// second after Grace is.
//
// The contexts of requests do not end with ctx, only with Grace: see Stopping.
func Serve(ctx context.Context, o ServerOptions) error {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopping := make(chan struct{})
	// Used up by strangers from thousands of networks: everybody's idle and new ones are closed.
	conns := &connections{open: map[net.Conn]*connection{}, most: or(o.MaxConnections, 8192)}
	errorLog, _ := zap.NewStdLogAt(o.Log, zap.WarnLevel) // fails for an unknown level only
	srv := &http.Server{
		Handler: conns.asked(o.Handler),
		// Used up by a slow client, whose connection alone is closed.
		ReadHeaderTimeout: or(o.ReadHeaderTimeout, 5*time.Second),
		ReadTimeout:       or(o.ReadTimeout, stepWithin),
		WriteTimeout:      or(o.WriteTimeout, answerWithin),
		// Used up by an idle client, whose connection alone is closed.
		IdleTimeout: or(o.IdleTimeout, 120*time.Second),
		// Used up by one request, which alone is refused.
		MaxHeaderBytes: or(o.MaxHeaderBytes, 16<<10),
		ErrorLog:       errorLog,
		ConnState:      conns.changed,
		ConnContext:    conns.context,
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(base, servingKey{}, serving{stopping, base})
		},
	}

	var served error
	ended := make(chan struct{})
	go func() {
		served = srv.Serve(o.Listener)
		close(ended)
	}()
	select {
	case <-ctx.Done():
	case <-ended:
	}

	close(stopping)
	conns.stop()
	grace, done := context.WithTimeout(context.Background(), or(o.Grace, 4*time.Second))
	defer done()
	if err := srv.Shutdown(grace); err != nil && grace.Err() != nil {
		o.Log.Warn("requests cut off", zap.Int("connections", conns.count()))
		cancel()
		conns.wait(cutOff) // a handler that heeds its context still gets its answer out
		_ = srv.Close()
	}
	<-ended
	if n := conns.wait(cutOff); n > 0 {
		return fmt.Errorf("stop http: %d requests do not end", n)
	}
	if !errors.Is(served, http.ErrServerClosed) {
		return fmt.Errorf("serve http: %w", served)
	}
	return nil
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

type servingKey struct{}

// serving is what the contexts of requests know of their server.
type serving struct {
	stopping <-chan struct{}
	base     context.Context // ends when requests are cut off
}

// Stopping is closed when the server that serves this request begins to stop: a long poll answers then, with what
// it has, instead of being cut off. Outside a request of Serve it is nil, which blocks for ever.
func Stopping(ctx context.Context) <-chan struct{} {
	s, _ := ctx.Value(servingKey{}).(serving)
	return s.stopping
}

// Through gives the context of a request for what is to be seen through when its client hangs up: it ends only when the
// server cuts requests off. Outside a request of Serve it does not end.
func Through(ctx context.Context) context.Context {
	s, ok := ctx.Value(servingKey{}).(serving)
	if !ok {
		return context.WithoutCancel(ctx)
	}
	return through{context.WithoutCancel(ctx), s.base}
}

type through struct {
	context.Context // the values
	served          context.Context
}

func (t through) Done() <-chan struct{} { return t.served.Done() }
func (t through) Err() error            { return t.served.Err() }

// AfterFunc spares contexts that are made of this one a goroutine each.
func (t through) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(t.served, f) }
