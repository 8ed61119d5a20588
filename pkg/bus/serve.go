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

// defaultInFlight bounds an endpoint's work when ServeOptions do not. Used up
// by all accounts together, since each has less at ingress: everybody of the
// shard is told to come again.
const defaultInFlight = 4096

// Handler answers one request, JSON both ways. Handle makes one.
type Handler func(ctx context.Context, request []byte) (answer []byte, err error)

// Handle makes a handler of f. A fault that f returns crosses the wire; of any
// other error the caller learns only that it happened.
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

// Endpoint is a subject and what answers it.
type Endpoint struct {
	Subject string
	Handler Handler
	// Broadcast hands each request to every process that serves the subject,
	// instead of to one of them.
	Broadcast bool
}

// ServeOptions describe a service on the bus.
type ServeOptions struct {
	Name        string // letters, digits, - and _
	Version     string // semantic
	Description string
	Endpoints   []Endpoint
	// MaxInFlight bounds the requests each endpoint works on at a time,
	// 4,096 if 0. What comes over it is answered Unavailable, code "busy".
	// A handler that waits for something may do so outside it: see Rest.
	MaxInFlight int
	// Life, if set, goes on after the end of Serve's context: where the engine
	// is away then, Serve returns when it is back, or when Life ends. The engine
	// would else be told by the connection that these endpoints are served still.
	Life context.Context
	// Ready, if set, is called once the engine delivers requests to it.
	Ready func()
	// Log takes the errors of which the caller is told nothing.
	Log *zap.Logger
}

// Serve answers requests, each in its own goroutine, until ctx is done. The
// handlers' contexts end then too, and at their caller's deadline; Serve
// returns when all handlers have. `nats micro ls` shows the service.
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
		// An engine that is away is told of the endpoints when it is back.
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

// serving is one Serve and its handlers.
type serving struct {
	conn *nats.Conn
	log  *zap.Logger
	ctx  context.Context

	mu     sync.Mutex // orders handlers.Add before handlers.Wait
	closed bool
	// handlers are those at work.
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
		// r's own Respond writes what micro reads when this function returns,
		// so the answer goes past it.
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

// place is a handler's among the requests that are worked on.
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

// Rest gives up the place that the handler of ctx has among the requests that
// its endpoint works on, while it waits for something. The handler calls resume
// before it works on, which waits for a place and fails only with its context,
// or it returns. Who calls it bounds how many of its handlers rest. Outside of a
// handler it does nothing.
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

// guarded calls a handler. One that panics fails its request, and nothing else.
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

// awaitConnection returns when there is a connection, or never will be.
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
