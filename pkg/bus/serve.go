package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/retry"
)

// Phones that wait for messages, or for their turn, are not counted: see Rest.
//
// Limit: an endpoint works on 4,096 requests at a time. Beyond it: 503 busy, with
// Retry-After.
// Used up by: all accounts together: ingress bounds each of them below that. Hurts:
// all accounts of the shard. Test: TestServe_InFlightBound.
const defaultInFlight = 4096

// Handler answers one request. Request and answer are JSON. See Handle.
type Handler func(ctx context.Context, request []byte) (answer []byte, err error)

// Handle makes a handler of f. A fault that f returns is sent to the caller. Of any
// other error the caller learns only that there was one.
func Handle[A, Q any](f func(context.Context, Q) (A, error)) Handler {
	return func(ctx context.Context, request []byte) ([]byte, error) {
		var q Q
		if err := json.Unmarshal(request, &q); err != nil {
			return nil, fault.New(fault.Invalid, "malformed_request", "The request is malformed").With(err)
		}
		a, err := f(ctx, q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(a)
	}
}

// Endpoint is a subject and the handler of its requests.
type Endpoint struct {
	Subject string
	Handler Handler
	// Broadcast: each request goes to all processes that serve the subject, not to
	// one of them.
	Broadcast bool
}

// ServeOptions describe a service on the bus.
type ServeOptions struct {
	Name        string // letters, digits, - and _
	Version     string // semantic
	Description string
	Endpoints   []Endpoint
	// MaxInFlight bounds the requests that each endpoint works on at a time, 4,096
	// if 0. Those beyond it are answered fault.Unavailable, "busy". A handler that
	// only waits need not count: see Rest.
	MaxInFlight int
	// Life, if set, lasts longer than Serve's context. If the engine is away when
	// Serve's context ends, Serve returns when the engine is back, or when Life
	// ends. Otherwise the connection would subscribe these endpoints again when it
	// finds the engine.
	Life context.Context
	// Ready, if set, is called once the engine delivers requests.
	Ready func()
	// Log gets the errors that callers are not told. Nil: they are dropped.
	Log *zap.Logger
}

// Serve answers requests, each in its own goroutine, until ctx is done. A
// handler's context ends with ctx, and at its caller's deadline. Serve returns when
// all handlers have. `nats micro ls` lists the service.
func (b *Bus) Serve(ctx context.Context, o ServeOptions) error {
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = defaultInFlight
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	s := &serving{conn: b.Conn, log: o.Log, ctx: ctx}
	service, err := micro.AddService(b.Conn, micro.Config{Name: o.Name, Version: o.Version, Description: o.Description})
	if err != nil {
		return fmt.Errorf("serve %s: %w", o.Name, err)
	}
	for _, e := range o.Endpoints {
		opts := []micro.EndpointOpt{micro.WithEndpointSubject(e.Subject)}
		if e.Broadcast {
			opts = append(opts, micro.WithEndpointQueueGroupDisabled())
		}
		name := strings.ReplaceAll(e.Subject, ".", "-")
		slots := make(chan struct{}, o.MaxInFlight)
		if err = service.AddEndpoint(name, s.handOff(e.Handler, slots), opts...); err != nil {
			err = fmt.Errorf("serve %s: %w", e.Subject, err)
			break
		}
	}
	if err == nil {
		// The connection subscribes the endpoints when an engine that is away is back.
		err = retry.Do(ctx, retryPause, nil, func() error {
			err := b.flush(ctx)
			if b.Conn.IsClosed() {
				return retry.Stop(err)
			}
			return err
		})
	}
	if err == nil {
		if o.Ready != nil {
			o.Ready()
		}
		<-ctx.Done()
	} else if ctx.Err() != nil {
		err = nil
	}
	if !b.Conn.IsConnected() && o.Life != nil {
		s.close()
		b.awaitConnection(o.Life)
	}
	if stop := service.Stop(); err == nil && !errors.Is(stop, nats.ErrConnectionClosed) {
		err = stop
	}
	s.close()
	return err
}

// serving is one call of Serve and its handlers.
type serving struct {
	conn *nats.Conn
	log  *zap.Logger
	ctx  context.Context

	mu     sync.Mutex // orders handlers.Add before handlers.Wait
	closed bool
	// handlers are the ones that run.
	handlers sync.WaitGroup
}

var (
	errBusy     = fault.New(fault.Unavailable, "busy", "Too many requests are being worked on")
	errStopping = fault.New(fault.Unavailable, "stopping", "The service is stopping")
)

// handOff gives each request its own goroutine: micro calls an endpoint's
// handler for one request at a time.
func (s *serving) handOff(h Handler, slots chan struct{}) micro.Handler {
	return micro.HandlerFunc(func(r micro.Request) {
		// r.Respond would write fields that micro reads when this function returns,
		// while the handler still runs. So the answer is published directly.
		reply, request, timeout := r.Reply(), r.Data(), r.Headers().Get(timeoutHeader)
		select {
		case slots <- struct{}{}:
		default:
			s.answer(reply, nil, errBusy)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			<-slots
			s.answer(reply, nil, errStopping)
			return
		}
		s.handlers.Go(func() {
			own := place{slots: slots, taken: true}
			defer own.leave()
			ctx, cancel := context.WithTimeout(context.WithValue(s.ctx, placeKey{}, &own), parseTimeout(timeout))
			defer cancel()
			answer, err := guarded(ctx, h, request)
			s.answer(reply, answer, err)
		})
	})
}

// place is the place of one handler among the MaxInFlight requests of its
// endpoint.
type place struct {
	slots chan struct{}
	taken bool // used by the handler's goroutine only
}

type placeKey struct{}

func (p *place) leave() {
	if p.taken {
		<-p.slots
		p.taken = false
	}
}

// Rest gives back the place of a handler, whose ctx it is given, among its
// endpoint's MaxInFlight requests. Use it before a handler waits for something. To
// continue, the handler calls resume, which waits for a place and fails only with
// its context; it may also return without. The number of handlers that rest has no
// bound here: the caller needs one. Outside a handler Rest does nothing.
func Rest(ctx context.Context) (resume func(context.Context) error) {
	own, ok := ctx.Value(placeKey{}).(*place)
	if !ok || !own.taken {
		return func(context.Context) error { return nil }
	}
	own.leave()
	return func(ctx context.Context) error {
		select {
		case own.slots <- struct{}{}:
			own.taken = true
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// guarded calls a handler. If it panics, only its own request fails.
func guarded(ctx context.Context, h Handler, request []byte) (answer []byte, err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		answer, err = nil, fmt.Errorf("panic: %s\n%s", fault.OfPanic(v), debug.Stack())
	}()
	return h(ctx, request)
}

func (s *serving) answer(reply string, answer []byte, err error) {
	if reply == "" {
		return
	}
	sent := s.send(reply, answer, err)
	if errors.Is(sent, nats.ErrMaxPayload) {
		sent = s.send(reply, nil, fault.New(fault.TooLarge, "answer_too_large", "The answer is too large").With(sent))
	}
	if sent != nil {
		s.log.Warn("request not answered", zap.Error(sent))
	}
}

func (s *serving) send(reply string, answer []byte, err error) error {
	if err == nil {
		return s.conn.Publish(reply, answer)
	}
	f := fault.As(err)
	if f.Kind == fault.Internal && Away(err) {
		f = fault.New(fault.Unavailable, "engine_unavailable", "The engine cannot be reached now").With(err)
		s.log.Debug("request failed", zap.Error(err))
	}
	if f.Kind == fault.Internal {
		s.log.Error("request failed", zap.Error(err))
	}
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	header := nats.Header{micro.ErrorCodeHeader: {string(f.Kind)}, micro.ErrorHeader: {f.Text}}
	return s.conn.PublishMsg(&nats.Msg{Subject: reply, Header: header, Data: data})
}

// awaitConnection returns when there is a connection, when there never will be one,
// and with ctx.
func (b *Bus) awaitConnection(ctx context.Context) {
	status := b.Conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer b.Conn.RemoveStatusListener(status)
	for !b.Conn.IsConnected() && !b.Conn.IsClosed() {
		select {
		case <-status:
		case <-ctx.Done():
			return
		}
	}
}

func (s *serving) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.handlers.Wait()
}

func parseTimeout(header string) time.Duration {
	timeout, err := time.ParseDuration(header)
	if err != nil {
		return callTimeout
	}
	return timeout
}
