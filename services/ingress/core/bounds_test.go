package core

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// A publish that could not begin within ten seconds of the grant does not begin at all.
func TestCore_Enqueue_Late(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c, quota, limited := withQuota(t)
		c.enqueue[0] = commit(func(ctx context.Context, _ []*nats.Msg) (bus.Stored, error) {
			<-ctx.Done() // it waits in the line
			return bus.Stored{}, bus.ErrNotStored
		})
		begun := time.Now()
		_, err := c.Enqueue(t.Context(), limited)
		if !fault.Is(err, fault.Unavailable) || time.Since(begun) != 10*time.Second {
			t.Errorf("got %v after %s, want a refusal after 10s", err, time.Since(begun))
		}
		if len(quota.released) != 1 || !c.Idle() {
			t.Errorf("got %d grants released, idle %t, want the grant given back", len(quota.released), c.Idle())
		}
	})
}

// A dispatcher that does not answer is not waited for, a wait for work aside.
func TestCore_Pull_MuteDispatcher(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newCore(t)
		serve(t, c.bus, request.DispatcherPull(0), func(ctx context.Context, _ request.Pull) (request.Pulled, error) {
			<-ctx.Done()
			time.Sleep(time.Minute)
			return request.Pulled{}, nil
		})
		for _, wait := range []time.Duration{0, MaxWait} {
			begun := time.Now()
			_, err := c.Pull(t.Context(), Pull{Caller: Caller{Account: account}, Limit: 5, Wait: wait})
			if f := fault.As(err); f == nil || f.Code != "dispatcher_unavailable" || time.Since(begun) != min(wait, pollSlice)+5*time.Second {
				t.Errorf("wait %s: got %v after %s, want a refusal 5s after the wait, or the first part of it", wait, err, time.Since(begun))
			}
		}
	})
}

func TestErrorText(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", 1000), strings.Repeat("é", 500), "a\x00\n" + strings.Repeat("\xff", 300)} {
		got := errorText(text)
		if len(got) > 256 || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%q is kept as %q", text, got)
		}
	}
	if got := errorText(strings.Repeat("x", 257)); len(got) != 256 {
		t.Errorf("got %d bytes, want 256", len(got))
	}
}

// An engine that does not say which devices there are is not waited for.
func TestDevices_Late(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		if _, err := b.Conn.Subscribe("mute.>", func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		var err error
		if b.JS, err = jetstream.NewWithAPIPrefix(b.Conn, "mute"); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		_, err = newDevices(b, zap.NewNop(), time.Now, newPresence(time.Now)).contact(t.Context(), account.ID, "Pixel")
		if f := fault.As(err); f == nil || f.Code != "devices_unavailable" || time.Since(begun) != 2*time.Second {
			t.Errorf("got %v after %s, want a refusal after 2s", err, time.Since(begun))
		}
	})
}

// A phone that is known is not refused where the engine does not say in time when it was seen last.
func TestDevices_KnownAndLate(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
			t.Fatal(err)
		}
		d := newDevices(b, zap.NewNop(), time.Now, newPresence(time.Now))
		if _, err := d.contact(t.Context(), account.ID, "Pixel"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(seenEvery)
		if _, err := b.Conn.Subscribe("mute.>", func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		heard := b.JS
		var err error
		if b.JS, err = jetstream.NewWithAPIPrefix(b.Conn, "mute"); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 3 { // one asks, and the others wait for it
			all.Go(func() {
				if id, err := d.contact(t.Context(), account.ID, "Pixel"); err != nil || id != streams.DeviceIDOf(account.ID, "Pixel") {
					t.Errorf("got %v, %v, want the phone's id", id, err)
				}
			})
		}
		all.Wait()
		b.JS = heard
		if _, err := d.contact(t.Context(), account.ID, "Pixel"); err != nil || !d.fresh(streams.DeviceIDOf(account.ID, "Pixel"), time.Now()) {
			t.Errorf("got %v, and the next contact was not written", err)
		}
	})
}

// An account whose devices take their time keeps no other waiting, and its own no longer than one of them.
func TestDevices_Crowd(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		if _, err := b.Conn.Subscribe("mute.>", func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		var err error
		if b.JS, err = jetstream.NewWithAPIPrefix(b.Conn, "mute"); err != nil {
			t.Fatal(err)
		}
		d := newDevices(b, zap.NewNop(), time.Now, newPresence(time.Now))
		var wg sync.WaitGroup
		for n := range 256 {
			wg.Go(func() {
				begun := time.Now()
				_, err := d.contact(t.Context(), streams.AccountID(1+n/2), fmt.Sprint("phone-", n))
				if f := fault.As(err); f == nil || f.Code != "devices_unavailable" || time.Since(begun) != 2*time.Second {
					t.Errorf("got %v after %s, want a refusal after 2s", err, time.Since(begun))
				}
			})
		}
		wg.Wait()
	})
}

// What a token uses at one ingress is taken off at the others within a second.
func TestRates_Shared(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
			t.Fatal(err)
		}
		one, other := newCoreOn(t, b, 0), newCoreOn(t, b, 1)
		a := *account
		a.Plan.Rate, a.Tokens = 60, []streams.Token{{Hash: streams.HashToken("one")}}
		put(t, one, streams.AccountKey(a.ID), a)
		put(t, other, streams.AccountKey(a.ID), a)
		for range 30 {
			if _, _, err := one.Admit("one", Posting); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(shareEvery + 100*time.Millisecond)
		if _, rate, err := other.Admit("one", Posting); err != nil || rate.Remaining < 29 || rate.Remaining > 31 {
			t.Errorf("got %+v, %v, want about half left", rate, err)
		}
	})
}

func TestCore_Group_MuteDispatcher(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newCore(t)
		serve(t, c.bus, request.DispatcherFind(0), func(ctx context.Context, _ request.Find) (request.Found, error) {
			<-ctx.Done()
			time.Sleep(time.Minute)
			return request.Found{}, nil
		})
		begun := time.Now()
		_, err := c.Group(t.Context(), Caller{Account: account}, "order-1")
		if f := fault.As(err); f == nil || f.Code != "dispatcher_unavailable" || time.Since(begun) != 15*time.Second {
			t.Errorf("got %v after %s, want a refusal after 15s", err, time.Since(begun))
		}
	})
}

// What an account looks up waits for its own: others are answered meanwhile.
func TestCore_Group_Crowd(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newCore(t)
		other := &streams.Account{ID: streams.AccountIDOf("other"), Name: "other"}
		var mu sync.Mutex
		inside, most := map[streams.AccountID]int{}, map[streams.AccountID]int{}
		serve(t, c.bus, request.DispatcherFind(0), func(_ context.Context, q request.Find) (request.Found, error) {
			mu.Lock()
			inside[q.Account]++
			most[q.Account] = max(most[q.Account], inside[q.Account])
			mu.Unlock()
			time.Sleep(900 * time.Millisecond)
			mu.Lock()
			inside[q.Account]--
			mu.Unlock()
			return request.Found{}, nil
		})
		var wg sync.WaitGroup
		for range 4 * lookupsAtATime {
			wg.Go(func() {
				if _, err := c.Group(t.Context(), Caller{Account: account}, "order-1"); fault.As(err).Code != "not_found" {
					t.Errorf("got %v, want not_found in the end", err)
				}
			})
		}
		synctest.Wait()
		begun := time.Now()
		if _, err := c.Group(t.Context(), Caller{Account: other}, "order-1"); fault.As(err).Code != "not_found" || time.Since(begun) != 900*time.Millisecond {
			t.Errorf("another account: got %v after %v, want not_found after 900ms", err, time.Since(begun))
		}
		wg.Wait()
		if most[account.ID] != lookupsAtATime {
			t.Errorf("got %d of an account at a time, want %d", most[account.ID], lookupsAtATime)
		}
	})
}

// An engine that does not answer about sessions, webhooks or settings is not waited for.
func TestCore_Registry_Late(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newCore(t)
		if _, err := c.bus.Conn.Subscribe("mute.>", func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
		heard := c.bus.JS
		var err error
		if c.bus.JS, err = jetstream.NewWithAPIPrefix(c.bus.Conn, "mute"); err != nil {
			t.Fatal(err)
		}
		defer func() { c.bus.JS = heard }()
		caller := Caller{Account: account, Login: "acme"}
		for what, ask := range map[string]func() error{
			"session": func() error {
				_, err := c.BeginSession(t.Context(), caller, 0, []string{"all:any"})
				return err
			},
			"webhooks": func() error {
				_, err := c.Webhooks(t.Context(), caller)
				return err
			},
			"settings": func() error {
				_, err := c.Settings(t.Context(), caller)
				return err
			},
			"removal": func() error { return c.RemoveWebhook(t.Context(), caller, "w") },
		} {
			begun := time.Now()
			err := ask()
			if f := fault.As(err); f == nil || f.Code != "registry_unavailable" || time.Since(begun) != 2*time.Second {
				t.Errorf("%s: got %v after %s, want a refusal after 2s", what, err, time.Since(begun))
			}
		}
	})
}

func TestPresence_Bound(t *testing.T) {
	now := time.Now()
	p := newPresence(func() time.Time { return now })
	for d := range streams.DeviceID(maxPresent + 10) {
		p.called(d + 1)
	}
	if len(p.seen) != maxPresent || len(p.news) != maxPresent {
		t.Errorf("got %d and %d devices in memory, want %d", len(p.seen), len(p.news), maxPresent)
	}
	now = now.Add(2 * onlineFor)
	p.called(1)
	if len(p.seen) != 1 {
		t.Errorf("got %d devices in memory later, want those that are online", len(p.seen))
	}
}

// A phone is online for a while after its last call, here or at another ingress.
func TestPresence_Online(t *testing.T) {
	now := time.Now()
	p := newPresence(func() time.Time { return now })
	p.called(1)
	p.heard(request.Contact{Device: 2, At: now.Add(-time.Minute)})
	p.heard(request.Contact{Device: 3, At: now.Add(time.Hour)}) // by a clock that is ahead
	for after, want := range map[time.Duration]int{0: 3, 31 * time.Second: 2, onlineFor: 0} {
		at := now
		now = now.Add(after)
		if got := p.count(); got != want {
			t.Errorf("after %v: got %d online, want %d", after, got, want)
		}
		now = at
	}
	if got := p.tell(); len(got) != 1 || got[0].Device != 1 || len(p.tell()) != 0 {
		t.Errorf("got %v to tell others, want what called here, once", got)
	}
}

// A key that was taken, by nobody who can be found, is looked for so long and no longer.
func TestCore_Enqueue_KeyOfNobody(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newCore(t)
		c.enqueue[0] = commit(func(context.Context, []*nats.Msg) (bus.Stored, error) {
			return bus.Stored{}, &bus.WrongLast{Last: 7}
		})
		begun := time.Now()
		_, err := c.Enqueue(t.Context(), keyed(3, "k", "hash"))
		if f := fault.As(err); f == nil || f.Code != "idempotency_key_busy" || f.RetryAfter == 0 || time.Since(begun) != 2*time.Second {
			t.Errorf("got %v after %s, want a refusal after 2s", err, time.Since(begun))
		}
	})
}
