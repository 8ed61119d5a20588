// Package httpx is what the HTTP server needs beside its routes: limits, a stop that loses no answer, access log, health
// and headers.
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
	ReadTimeout       time.Duration // 15 s, headers and body; a Limiter extends it while the body comes
	WriteTimeout      time.Duration // 60 s, from the end of the headers, or of a slow body; more than the longest poll takes
	IdleTimeout       time.Duration // 120 s
	MaxHeaderBytes    int           // 16 KiB
	MaxConnections    int           // 8,192: beyond it those of strangers are closed, idle ones, or else new ones
	Grace             time.Duration // 4 s, for requests in flight at the end
}

// cutOff is how long Serve waits after Grace: once for the handlers after it has cancelled their contexts, and again
// after it has closed their connections.
const cutOff = 500 * time.Millisecond

// Serve answers requests until ctx is done. Then it takes no new ones. Those in flight have Grace to finish; after that
// their contexts are cancelled. It returns when all handlers have returned. A stop is no error, but a handler that still
// runs a second after Grace is.
//
// The contexts of requests do not end with ctx, but only after Grace: see Stopping.
func Serve(ctx context.Context, o ServerOptions) error {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	stopping := make(chan struct{})
	// Limit: 8,192 connections. Beyond it: connections of strangers are closed, then idle ones, then one of an account
	// that has half of them, or else new ones.
	// Used up by: strangers from thousands of networks. Hurts: all accounts: their idle and new connections are closed.
	// Test: TestServeBoundsConnections.
	conns := &connections{open: map[net.Conn]*connection{}, most: or(o.MaxConnections, 8192)}
	errorLog, _ := zap.NewStdLogAt(o.Log, zap.WarnLevel) // fails for an unknown level only
	srv := &http.Server{
		Handler: conns.asked(o.Handler),
		// Limit: 5 s to send the headers. Beyond it: the connection is closed.
		// Used up by: a slow client. Hurts: that client alone. Test: TestServeTimeouts.
		ReadHeaderTimeout: or(o.ReadHeaderTimeout, 5*time.Second),
		ReadTimeout:       or(o.ReadTimeout, stepWithin),
		WriteTimeout:      or(o.WriteTimeout, answerWithin),
		// Limit: a connection may be idle for 120 s. Beyond it: it is closed.
		// Used up by: an idle client. Hurts: that client alone. Test: TestServeTimeouts.
		IdleTimeout: or(o.IdleTimeout, 120*time.Second),
		// Limit: the headers of a request have at most 16 KiB. Beyond it: 431.
		// Used up by: one request. Hurts: that request alone. Test: TestServeRefusesLongHeaders.
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
		conns.wait(cutOff) // a handler that returns with its context can still send its answer
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

// Stopping is closed when the server of this request begins to stop. A long poll then answers with what it has, instead
// of being cut off. Outside a request of Serve it is nil, which blocks for ever.
func Stopping(ctx context.Context) <-chan struct{} {
	s, _ := ctx.Value(servingKey{}).(serving)
	return s.stopping
}

// Through gives a request's context to work that must be finished even if the client hangs up. It ends only when the
// server cuts requests off. Outside a request of Serve it never ends.
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

// Done is closed when the server cuts requests off.
func (t through) Done() <-chan struct{} { return t.served.Done() }

// Err says whether it has.
func (t through) Err() error { return t.served.Err() }

// AfterFunc spares each context that is derived from this one a goroutine.
func (t through) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(t.served, f) }
