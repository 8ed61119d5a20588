package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

type question struct{ Name string }
type answer struct{ Greeting string }

// serve runs a service with the endpoints, and returns when it answers.
func serve(t *testing.T, b *bus.Bus, o bus.ServeOptions) (stop func()) {
	t.Helper()
	ready := make(chan struct{})
	o.Name, o.Version, o.Ready = "test", "1.0.0", func() { close(ready) }
	stop = start(t, func(ctx context.Context) error { return b.Serve(ctx, o) })
	<-ready
	return stop
}

func endpoint[A, Q any](subject string, f func(context.Context, Q) (A, error)) bus.ServeOptions {
	return bus.ServeOptions{Endpoints: []bus.Endpoint{{Subject: subject, Handler: bus.Handle(f)}}}
}

func TestCall(t *testing.T) {
	b := bustest.New(t)
	serve(t, b, endpoint("greet", func(_ context.Context, q question) (answer, error) {
		return answer{"hello " + q.Name}, nil
	}))
	got, err := bus.Call[answer](t.Context(), b, "greet", question{"world"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(answer{"hello world"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestCall_FaultCrossesTheWire(t *testing.T) {
	b := bustest.New(t)
	want := fault.New(fault.LimitExceeded, "month_limit", "The month's limit is reached")
	want.Limit, want.Used, want.RetryAfter = 1000, 998, 3*time.Second
	serve(t, b, endpoint("limit", func(context.Context, question) (answer, error) {
		return answer{}, want.With(errors.New("secret reason"))
	}))
	_, err := bus.Call[answer](t.Context(), b, "limit", question{})
	got := fault.As(err)
	if got.Kind != want.Kind || got.Code != want.Code || got.Text != want.Text || got.Limit != 1000 || got.Used != 998 || got.RetryAfter != 3*time.Second {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the cause crossed the wire: %v", err)
	}
}

func TestCall_OtherErrorIsInternalAndLoggedWhereItHappened(t *testing.T) {
	b := bustest.New(t)
	core, lines := observer.New(zap.ErrorLevel)
	o := endpoint("broken", func(context.Context, question) (answer, error) {
		return answer{}, errors.New("bucket missing")
	})
	o.Log = zap.New(core)
	serve(t, b, o)
	_, err := bus.Call[answer](t.Context(), b, "broken", question{})
	if !fault.Is(err, fault.Internal) || strings.Contains(err.Error(), "bucket") {
		t.Errorf("got %v, want an internal error without its reason", err)
	}
	if lines.Len() != 1 || lines.All()[0].ContextMap()["error"] != "bucket missing" {
		t.Errorf("got log %v, want the reason", lines.All())
	}
}

func TestServe_HandlerThatPanics(t *testing.T) {
	b := bustest.New(t)
	core, lines := observer.New(zap.ErrorLevel)
	o := endpoint("broken", func(_ context.Context, q question) (answer, error) {
		if q.Name == "secret-text-1" {
			panic(q.Name)
		}
		return answer{"hello " + q.Name}, nil
	})
	o.Log = zap.New(core)
	serve(t, b, o)
	if _, err := bus.Call[answer](t.Context(), b, "broken", question{"secret-text-1"}); !fault.Is(err, fault.Internal) {
		t.Errorf("got %v, want an internal error", err)
	}
	if got, err := bus.Call[answer](t.Context(), b, "broken", question{"world"}); err != nil || got.Greeting != "hello world" {
		t.Errorf("the next one: got %v, %v", got, err)
	}
	if lines.Len() != 1 || strings.Contains(fmt.Sprint(lines.All()[0].ContextMap()), "secret-text") {
		t.Errorf("got log %v, want one line without the value", lines.All())
	}
}

func TestCall_MalformedRequest(t *testing.T) {
	b := bustest.New(t)
	serve(t, b, endpoint("greet", func(context.Context, question) (answer, error) { return answer{}, nil }))
	if _, err := bus.Call[answer](t.Context(), b, "greet", []int{1}); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v, want Invalid", err)
	}
}

func TestCall_NoResponder(t *testing.T) {
	b := bustest.New(t)
	_, err := bus.Call[answer](t.Context(), b, "nobody", question{})
	if f := fault.As(err); f.Kind != fault.Unavailable || f.Code != "no_responder" {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestCall_ClosedConnection(t *testing.T) {
	b := bustest.New(t)
	b.Conn.Close()
	_, err := bus.Call[answer](t.Context(), b, "greet", question{})
	if f := fault.As(err); f.Kind != fault.Unavailable || f.Code != "no_connection" {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestCall_AnswerTooLarge(t *testing.T) {
	b := bustest.New(t)
	serve(t, b, endpoint("large", func(context.Context, question) (answer, error) {
		return answer{strings.Repeat("x", natsd.MaxPayload)}, nil
	}))
	if _, err := bus.Call[answer](t.Context(), b, "large", question{}); !fault.Is(err, fault.TooLarge) {
		t.Errorf("got %v, want TooLarge", err)
	}
	if _, err := bus.Call[answer](t.Context(), b, "large", question{strings.Repeat("x", natsd.MaxPayload)}); !fault.Is(err, fault.TooLarge) {
		t.Errorf("got %v, want TooLarge", err)
	}
}

// The handler's context ends when the caller's does, not before.
func TestCall_DeadlineTravels(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		server, b := bustest.Start(t, dir)
		defer server.Stop()
		waited := make(chan time.Duration, 1)
		stop := serve(t, b, endpoint("wait", func(ctx context.Context, _ question) (answer, error) {
			begin := time.Now()
			<-ctx.Done()
			waited <- time.Since(begin)
			return answer{}, ctx.Err()
		}))
		defer stop()
		for _, want := range []time.Duration{7 * time.Second, time.Minute} {
			ctx, cancel := context.WithTimeout(context.Background(), want)
			_, err := bus.Call[answer](ctx, b, "wait", question{})
			cancel()
			if !fault.Is(err, fault.Unavailable) {
				t.Errorf("got %v, want Unavailable", err)
			}
			if got := <-waited; got != want {
				t.Errorf("handler had %v, want %v", got, want)
			}
		}
	})
}

// Requests of one endpoint run side by side, up to the bound.
func TestServe_InFlightBound(t *testing.T) {
	b := bustest.New(t)
	const bound = 3
	began, release := make(chan struct{}, bound), make(chan struct{})
	o := endpoint("slow", func(context.Context, question) (answer, error) {
		began <- struct{}{}
		<-release
		return answer{}, nil
	})
	o.MaxInFlight = bound
	serve(t, b, o)
	var calls sync.WaitGroup
	for range bound {
		calls.Go(func() {
			if _, err := bus.Call[answer](t.Context(), b, "slow", question{}); err != nil {
				t.Error(err)
			}
		})
	}
	for range bound {
		<-began
	}
	_, err := bus.Call[answer](t.Context(), b, "slow", question{})
	if f := fault.As(err); f.Kind != fault.Unavailable || f.Code != "busy" {
		t.Errorf("over the bound: got %v, want Unavailable busy", err)
	}
	close(release)
	calls.Wait()
	if _, err := bus.Call[answer](t.Context(), b, "slow", question{}); err != nil {
		t.Errorf("after the others ended: got %v", err)
	}
}

// A handler that rests is not among those at work; when it works on it waits for a place.
func TestServe_Rest(t *testing.T) {
	b := bustest.New(t)
	const bound, resting = 2, 20
	rest, release, resumed, work := make(chan struct{}, resting), make(chan struct{}), make(chan struct{}, resting), make(chan struct{})
	o := endpoint("slow", func(ctx context.Context, q question) (answer, error) {
		if q.Name == "works" {
			rest <- struct{}{}
			<-work
			return answer{}, nil
		}
		resume := bus.Rest(ctx)
		rest <- struct{}{}
		<-release
		if err := resume(ctx); err != nil {
			return answer{}, err
		}
		resumed <- struct{}{}
		return answer{}, bus.Rest(ctx)(ctx)
	})
	o.MaxInFlight = bound
	serve(t, b, o)
	var calls sync.WaitGroup
	call := func(text string) {
		calls.Go(func() {
			if _, err := bus.Call[answer](t.Context(), b, "slow", question{Name: text}); err != nil {
				t.Errorf("%s: %v", text, err)
			}
		})
		<-rest
	}
	for range resting {
		call("rests")
	}
	for range bound {
		call("works")
	}
	if _, err := bus.Call[answer](t.Context(), b, "slow", question{}); fault.As(err).Code != "busy" {
		t.Errorf("over the bound: got %v, want busy", err)
	}
	close(release)
	select {
	case <-resumed:
		t.Error("a handler works on beyond the bound")
	default:
	}
	close(work)
	calls.Wait()
	if got := len(resumed); got != resting {
		t.Errorf("%d worked on, want %d", got, resting)
	}
}

func TestServe_QueueGroupAndBroadcast(t *testing.T) {
	b := bustest.New(t)
	const instances = 3
	var mu sync.Mutex
	got := map[string]int{}
	heard := make(chan string, 100)
	count := func(subject string) bus.Handler {
		return bus.Handle(func(context.Context, question) (answer, error) {
			mu.Lock()
			got[subject]++
			mu.Unlock()
			heard <- subject
			return answer{}, nil
		})
	}
	for range instances {
		serve(t, b, bus.ServeOptions{Endpoints: []bus.Endpoint{
			{Subject: "one", Handler: count("one")},
			{Subject: "every", Handler: count("every"), Broadcast: true},
		}})
	}
	for _, subject := range []string{"every", "one"} {
		if _, err := bus.Call[answer](t.Context(), b, subject, question{}); err != nil {
			t.Fatal(err)
		}
	}
	for range instances + 1 {
		<-heard
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(map[string]int{"one": 1, "every": instances}, got); diff != "" {
		t.Error(diff)
	}
}

// When Serve ends, handlers are told, and waited for.
func TestServe_StopWaitsForHandlers(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		server, b := bustest.Start(t, dir)
		defer server.Stop()
		began := make(chan struct{})
		stop := serve(t, b, endpoint("long", func(ctx context.Context, _ question) (answer, error) {
			close(began)
			<-ctx.Done()
			time.Sleep(3 * time.Second) // of simulated time, to put things in order
			return answer{}, ctx.Err()
		}))
		failed := make(chan error, 1)
		go func() {
			_, err := bus.Call[answer](context.Background(), b, "long", question{})
			failed <- err
		}()
		<-began
		begin := time.Now()
		stop()
		if got, want := time.Since(begin), 3*time.Second; got < want {
			t.Errorf("Serve returned after %v, while a handler ran until %v", got, want)
		}
		if err := <-failed; !fault.Is(err, fault.Unavailable) {
			t.Errorf("got %v, want Unavailable", err)
		}
		if _, err := bus.Call[answer](context.Background(), b, "long", question{}); fault.As(err).Code != "no_responder" {
			t.Errorf("after stop: got %v, want no responder", err)
		}
	})
}

func TestServe_LeavesNoGoroutine(t *testing.T) {
	for _, first := range []string{"service", "connection"} {
		t.Run(first, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			server, b := bustest.Start(t, t.TempDir())
			stop := serve(t, b, endpoint("greet", func(context.Context, question) (answer, error) { return answer{}, nil }))
			if first == "connection" {
				b.Conn.Close()
			}
			stop()
			server.Stop()
			goleak.VerifyNone(t, before)
		})
	}
}

func TestServe_IsListed(t *testing.T) {
	b := bustest.New(t)
	serve(t, b, endpoint("trunkline.greet", func(context.Context, question) (answer, error) { return answer{}, nil }))
	m, err := b.Conn.Request("$SRV.INFO.test", nil, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{micro.InfoResponseType, `"subject":"trunkline.greet"`} {
		if !strings.Contains(string(m.Data), want) {
			t.Errorf("got %s, want it to name %s", m.Data, want)
		}
	}
}

// A call without a deadline of its own ends by itself.
func TestCall_Silent(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		server, b := bustest.Start(t, t.TempDir())
		defer server.Stop()
		if _, err := b.Conn.Subscribe("silent", func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, err := bus.Call[answer](context.Background(), b, "silent", question{})
		if took := time.Since(begun); !fault.Is(err, fault.Unavailable) || took != 5*time.Second {
			t.Errorf("got %v after %s, want Unavailable after 5s", err, took)
		}
	})
}
