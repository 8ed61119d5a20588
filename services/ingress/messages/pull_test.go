package messages

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

func full(context.Context, []*nats.Msg) (bus.Stored, error) { return bus.Stored{}, bus.ErrFull }

func TestPull(t *testing.T) {
	c := newMessages(t)
	asked := make(chan request.Pull, 1)
	body, err := event.Encode(event.Enqueued{ID: 7, Phone: "+1234567890", Text: "<text>"})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, c.bus, request.DispatcherPull(0), func(_ context.Context, q request.Pull) (request.Pulled, error) {
		asked <- q
		return request.Pulled{Lease: 1, Messages: []request.Outgoing{{ID: 7, Body: body}}}, nil
	})
	planned := *account
	planned.Plan = streams.Plan{Lease: time.Minute, Attempts: 9, AfterLapse: streams.Fail}
	phone := streams.DeviceIDOf(account.ID, "Phone")
	tests := []struct {
		name string
		cmd  Pull
		want request.Pull
	}{
		{"defaults", Pull{Caller: access.Caller{Account: account}, Limit: 5, Policy: streams.Retry},
			request.Pull{Account: account.ID, Limit: 5, Lease: streams.DefaultLease, Attempts: streams.DefaultAttempts, Policy: streams.Retry}},
		{"the plan's", Pull{Caller: access.Caller{Account: &planned}, Limit: 5, Policy: streams.Retry, Device: "Phone", Wait: time.Hour},
			request.Pull{Account: account.ID, Device: phone, Name: "Phone", Limit: 5, Wait: pollSlice, Lease: time.Minute, Attempts: 9, Policy: streams.Fail}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := c.Pull(t.Context(), test.cmd)
			if err != nil || len(got) != 1 || got[0].ID != 7 || got[0].Phone.Reveal() != "+1234567890" || got[0].Text.Reveal() != "<text>" {
				t.Errorf("got %v, %v", got, err)
			}
			asked := <-asked
			if named := asked.Poll != ""; named != (asked.Wait > 0) {
				t.Errorf("asked to wait %v as poll %q", asked.Wait, asked.Poll)
			}
			asked.Poll = "" // is random
			if diff := cmp.Diff(test.want, asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPull_NoDispatcher(t *testing.T) {
	c := newMessages(t)
	_, err := c.Pull(t.Context(), Pull{Caller: access.Caller{Account: account}, Limit: 5, Wait: time.Second})
	if f := fault.As(err); f.Kind != fault.Unavailable || f.Code != "dispatcher_unavailable" || f.RetryAfter == 0 {
		t.Errorf("got %v", err)
	}
}

// A wait ends when the phone goes or the server stops; the dispatcher is told, and what it answers then still counts.
func TestPull_HangUp(t *testing.T) {
	body, err := event.Encode(event.Enqueued{ID: 7})
	if err != nil {
		t.Fatal(err)
	}
	for _, stops := range []bool{true, false} {
		c := newMessages(t)
		polls, hung := make(chan string, 1), make(chan string, 1)
		serve(t, c.bus, request.DispatcherPull(0), func(_ context.Context, q request.Pull) (request.Pulled, error) {
			polls <- q.Poll
			hung <- <-hung // until it is hung up
			return request.Pulled{Lease: 1, Messages: []request.Outgoing{{ID: 7, Body: body}}}, nil
		})
		sub, err := c.bus.Conn.Subscribe(request.DispatcherHangup(0), func(m *nats.Msg) { hung <- string(m.Data) })
		if err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		stop, pulled := make(chan struct{}), make(chan []Outgoing, 1)
		go func() {
			got, err := c.Pull(ctx, Pull{Caller: access.Caller{Account: account}, Limit: 5, Wait: MaxWait, Stop: stop})
			if err != nil {
				t.Error(err)
			}
			pulled <- got
		}()
		poll := <-polls
		if stops {
			close(stop)
		} else {
			leave()
		}
		if got := <-pulled; len(got) != 1 {
			t.Errorf("got %v", got)
		}
		if got, want := <-hung, `{"poll":"`+poll+`"}`; got != want || poll == "" {
			t.Errorf("hung up %s, want %s", got, want)
		}
		leave()
		if err := sub.Unsubscribe(); err != nil {
			t.Error(err)
		}
	}
}

// Where too many phones of the account wait already, the dispatcher does not wait for one more: the phone looks again every
// few seconds, until its wait is over.
func TestPull_Crowded(t *testing.T) {
	bustest.SimulateFrom(t, streams.Epoch.Add(24*time.Hour), func(t *testing.T) {
		c := newMessages(t)
		asked := make(chan time.Time, 100)
		serve(t, c.bus, request.DispatcherPull(0), func(context.Context, request.Pull) (request.Pulled, error) {
			asked <- time.Now()
			return request.Pulled{Crowded: true}, nil
		})
		began, stop := time.Now(), make(chan struct{})
		cmd := Pull{Caller: access.Caller{Account: account}, Limit: 5, Wait: 20 * time.Second, Stop: stop}
		if got, err := c.Pull(t.Context(), cmd); err != nil || len(got) != 0 {
			t.Errorf("got %v, %v", got, err)
		}
		if took := time.Since(began); took < cmd.Wait || took > cmd.Wait+time.Second {
			t.Errorf("it waited %v, want %v", took, cmd.Wait)
		}
		if got := len(asked); got != 3 {
			t.Errorf("the dispatcher was asked %d times, want 3", got)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = c.Pull(t.Context(), cmd)
		}()
		synctest.Wait()
		close(stop)
		synctest.Wait()
		select {
		case <-ended:
		default:
			t.Error("it waits on although the server stops")
		}
		<-ended
	})
}

// No more of an account's phones wait than it may have names of: one more is told to come again before anything is asked
// for it. Others' phones wait all the same, and so does one more when another has gone.
func TestPull_TooManyWait(t *testing.T) {
	bustest.SimulateFrom(t, streams.Epoch.Add(24*time.Hour), func(t *testing.T) {
		c := newMessages(t)
		var asked atomic.Int32
		serve(t, c.bus, request.DispatcherPull(0), func(context.Context, request.Pull) (request.Pulled, error) {
			asked.Add(1)
			return request.Pulled{Crowded: true}, nil
		})
		stop, leaves := make(chan struct{}), make(chan struct{})
		var crowd sync.WaitGroup
		for i := range streams.MaxDevices {
			one := Pull{Caller: access.Caller{Account: account}, Limit: 5, Wait: MaxWait, Stop: stop}
			if i == 0 {
				one.Stop = leaves
			}
			crowd.Go(func() {
				if _, err := c.Pull(t.Context(), one); err != nil {
					t.Errorf("one of as many as may wait: %v", err)
				}
			})
		}
		synctest.Wait()
		before := asked.Load()
		one := Pull{Caller: access.Caller{Account: account}, Limit: 5, Wait: time.Second}
		_, err := c.Pull(t.Context(), one)
		if f := fault.As(err); f == nil || f.Code != "too_many_waiting" || f.Kind != fault.RateLimited || f.RetryAfter != pollSlice {
			t.Errorf("one more than may wait: got %v", err)
		}
		if got := asked.Load(); got != before {
			t.Error("a dispatcher was asked for one that is refused")
		}
		now := one
		now.Wait = 0
		if _, err := c.Pull(t.Context(), now); err != nil {
			t.Errorf("one that does not wait: %v", err)
		}
		other := one
		other.Caller.Account = &streams.Account{ID: streams.AccountIDOf("other"), Name: "other"}
		if _, err := c.Pull(t.Context(), other); err != nil {
			t.Errorf("another account's: %v", err)
		}
		close(leaves)
		synctest.Wait()
		if _, err := c.Pull(t.Context(), one); err != nil {
			t.Errorf("one more when another has gone: %v", err)
		}
		close(stop)
		crowd.Wait()
		if len(c.waits.of) > 0 {
			t.Errorf("accounts whose phones have gone are counted: %v", c.waits.of)
		}
	})
}

// A dispatcher that does not answer is not waited for, a wait for work aside.
func TestPull_MuteDispatcher(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newMessages(t)
		serve(t, c.bus, request.DispatcherPull(0), func(ctx context.Context, _ request.Pull) (request.Pulled, error) {
			<-ctx.Done()
			time.Sleep(time.Minute)
			return request.Pulled{}, nil
		})
		for _, wait := range []time.Duration{0, MaxWait} {
			begun := time.Now()
			_, err := c.Pull(t.Context(), Pull{Caller: access.Caller{Account: account}, Limit: 5, Wait: wait})
			if f := fault.As(err); f == nil || f.Code != "dispatcher_unavailable" || time.Since(begun) != min(wait, pollSlice)+5*time.Second {
				t.Errorf("wait %s: got %v after %s, want a refusal 5s after the wait, or the first part of it", wait, err, time.Since(begun))
			}
		}
	})
}
