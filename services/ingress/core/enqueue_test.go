package core

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

var lane = streams.Lane{Priority: streams.Normal}

// drafts makes messages of an account that may enqueue.
func drafts(n int) Enqueue {
	cmd := Enqueue{Caller: Caller{Account: account, Subscribed: true}}
	for i := range n {
		cmd.Drafts = append(cmd.Drafts, Draft{Content: Content{Phone: "+1234567890", Text: event.Private(fmt.Sprint("text ", i))}, Lane: lane})
	}
	return cmd
}

// keyed is drafts under an idempotency key, with the ids as the answer.
func keyed(n int, key, hash string) Enqueue {
	cmd := drafts(n)
	cmd.Key = &Key{ID: key, Hash: hash, Render: func(ids []streams.MessageID) ([]byte, error) {
		return []byte(`"` + ids[0].String() + `"`), nil
	}}
	return cmd
}

const allMessages = "sms.enqueue.>"

func TestCore_Enqueue_StoresInOrder(t *testing.T) {
	c := newCore(t)
	accepted, err := c.Enqueue(t.Context(), drafts(1000))
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range accepted.IDs {
		msg, err := c.bus.Get(t.Context(), streams.EnqueueStream(0), uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		got, err := event.Decode[event.Enqueued](msg.Data)
		if err != nil {
			t.Fatal(err)
		}
		want := event.Enqueued{
			ID: id, Phone: "+1234567890", Text: event.Private(fmt.Sprint("text ", i)), Month: c.now().UTC().Format("2006-01"),
			Until: got.Until, // TestCore_Enqueue_Times
		}
		if got != want || msg.Subject != streams.EnqueueSubject(0, account.ID, lane) || msg.Header.Get("Nats-Msg-Id") != account.ID.String()+"/"+id.String() {
			t.Fatalf("message %d: got %+v under %s", i, got, msg.Subject)
		}
	}
}

func TestCore_Enqueue_Lanes(t *testing.T) {
	c := newCore(t)
	cmd := drafts(3)
	cmd.Drafts[1].Lane = streams.Lane{Target: 7, Priority: streams.High, Class: streams.Other}
	if _, err := c.Enqueue(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	for i, draft := range cmd.Drafts {
		msg, err := c.bus.Get(t.Context(), streams.EnqueueStream(0), uint64(i+1))
		if err != nil || msg.Subject != streams.EnqueueSubject(0, account.ID, draft.Lane) {
			t.Errorf("message %d: got %+v, %v", i, msg, err)
		}
	}
}

func TestCore_Enqueue_Key(t *testing.T) {
	c := newCore(t)
	first, err := c.Enqueue(t.Context(), keyed(1000, "k", "hash"))
	if err != nil || first.Replayed {
		t.Fatalf("first: %+v, %v", first.Replayed, err)
	}
	again, err := c.Enqueue(t.Context(), keyed(1000, "k", "hash"))
	if err != nil || !again.Replayed {
		t.Fatalf("again: %+v, %v", again.Replayed, err)
	}
	first.Replayed, first.First = true, 0
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("answers differ (-first +again):\n%s", diff)
	}
	if _, err := c.Enqueue(t.Context(), keyed(1000, "k", "other")); !errors.Is(err, errMismatch) {
		t.Errorf("another request under the key: got %v", err)
	}
	if got := stored(t, c, allMessages); got != 1000 {
		t.Errorf("got %d messages, want 1000", got)
	}
	marker, err := c.bus.LastForSubject(t.Context(), streams.EnqueueStream(0), streams.KeySubject(0, account.ID, "k"))
	if err != nil || marker.Sequence != 1 || marker.Header.Get("Nats-TTL") != "86400s" {
		t.Errorf("marker: %+v, %v", marker, err)
	}
}

// A key is one request's also when its repeat comes by another ingress between the look for it and the commit.
func TestCore_Enqueue_KeyTakenMeanwhile(t *testing.T) {
	c := newCore(t)
	other := newCoreOn(t, c.bus, 1)
	var first Accepted
	engine := c.enqueue[0]
	c.enqueue[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
		var err error
		if first, err = other.Enqueue(ctx, keyed(3, "k", "hash")); err != nil {
			t.Error(err)
		}
		return engine.Commit(ctx, msgs)
	})
	again, err := c.Enqueue(t.Context(), keyed(3, "k", "hash"))
	if err != nil || !again.Replayed || string(again.Answer) != string(first.Answer) {
		t.Errorf("got %+v, %v, want the answer %s", again, err, first.Answer)
	}
	if got := stored(t, c, allMessages); got != 3 {
		t.Errorf("got %d messages, want 3", got)
	}
}

// However a commit ends, one request with a key is stored once, and is told so if it can be known.
func TestCore_Enqueue_KeyAfterLostAnswer(t *testing.T) {
	for name, lost := range map[string]error{"repeat refused": &bus.WrongLast{Last: 1}, "unknown": bus.ErrUnknownOutcome} {
		t.Run(name, func(t *testing.T) {
			c := newCore(t)
			engine := c.enqueue[0]
			c.enqueue[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
				_, err := engine.Commit(ctx, msgs)
				return bus.Stored{}, errors.Join(err, lost)
			})
			accepted, err := c.Enqueue(t.Context(), keyed(3, "k", "hash"))
			if err != nil || accepted.Replayed || stored(t, c, allMessages) != 3 {
				t.Errorf("got %+v, %v with %d stored", accepted, err, stored(t, c, allMessages))
			}
		})
		t.Run(name+", not stored", func(t *testing.T) {
			c := newCore(t)
			c.enqueue[0] = commit(func(context.Context, []*nats.Msg) (bus.Stored, error) { return bus.Stored{}, lost })
			want := fault.Unavailable
			if errors.Is(lost, bus.ErrUnknownOutcome) {
				want = fault.UnknownOutcome
			}
			if _, err := c.Enqueue(t.Context(), keyed(3, "k", "hash")); !fault.Is(err, want) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// A collision of ids is no success: the messages get others.
func TestCore_Enqueue_IDsTaken(t *testing.T) {
	c := newCore(t)
	engine, tried := c.enqueue[0], []*nats.Msg{}
	c.enqueue[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
		if len(tried) < 2 {
			other := nats.NewMsg(msgs[0].Subject)
			other.Header.Set("Nats-Msg-Id", msgs[1].Header.Get("Nats-Msg-Id"))
			if _, err := engine.Commit(ctx, []*nats.Msg{other}); err != nil {
				t.Error(err)
			}
		}
		tried = append(tried, msgs[0])
		return engine.Commit(ctx, msgs)
	})
	if _, err := c.Enqueue(t.Context(), drafts(3)); err != nil {
		t.Fatal(err)
	}
	if len(tried) != 3 || stored(t, c, allMessages) != 2+3 {
		t.Errorf("got %d tries and %d stored", len(tried), stored(t, c, allMessages))
	}
}

func TestCore_Enqueue_NoSubscription(t *testing.T) {
	c := newCore(t)
	cmd := drafts(1)
	cmd.Caller.Subscribed = false
	if _, err := c.Enqueue(t.Context(), cmd); !errors.Is(err, errSubscription) {
		t.Errorf("got %v", err)
	}
}

// quota grants everything as one leader, and notes what is released.
type quota struct {
	mu       sync.Mutex
	leader   uint64
	released []string
}

func (q *quota) run(b *bus.Bus) func(context.Context) error {
	given := 0
	return func(ctx context.Context) error {
		return b.Serve(ctx, bus.ServeOptions{Name: "quota", Version: "0.0.0", Endpoints: []bus.Endpoint{
			{Subject: request.QuotaReserve, Handler: bus.Handle(func(_ context.Context, r request.Reserve) (request.Grant, error) {
				q.mu.Lock()
				defer q.mu.Unlock()
				given++
				return request.Grant{ID: fmt.Sprint("g", given), Account: r.Account, Month: "2026-11", Count: r.Count, Leader: q.leader}, nil
			})},
			{Subject: request.QuotaRelease, Handler: bus.Handle(func(_ context.Context, r request.Release) (request.Released, error) {
				q.mu.Lock()
				defer q.mu.Unlock()
				q.released = append(q.released, r.Grant.ID)
				return request.Released{}, nil
			})},
		}})
	}
}

// withQuota is newCore for an account with a limit.
func withQuota(t *testing.T) (*Core, *quota, Enqueue) {
	t.Helper()
	c, q := newCore(t), &quota{leader: 5}
	run(t, q.run(c.bus))
	for { // until it serves
		if _, err := bus.Call[request.Released](t.Context(), c.bus, request.QuotaRelease, request.Release{}); err == nil {
			break
		}
	}
	q.released = nil
	cmd := drafts(2)
	limited := *account
	limited.Plan.Limit = 100
	cmd.Caller.Account = &limited
	return c, q, cmd
}

// What becomes of a grant depends on what is known of the commit.
func TestCore_Enqueue_Grant(t *testing.T) {
	tests := []struct {
		name           string
		err            error
		kind           fault.Kind
		released, open int
	}{
		{"stored", nil, "", 0, 0},
		{"full", bus.ErrFull, fault.Full, 1, 0},
		{"busy", bus.ErrBusy, fault.Unavailable, 1, 0},
		{"unknown", bus.ErrUnknownOutcome, fault.UnknownOutcome, 0, 1},
		{"ids taken, over and over", bus.ErrDuplicate, fault.Internal, 1, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, q, cmd := withQuota(t)
			var meanwhile request.Grants
			engine := c.enqueue[0]
			c.enqueue[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
				meanwhile, _ = c.OpenGrants(ctx, request.OpenGrants{Leader: 5})
				if test.err != nil {
					return bus.Stored{}, test.err
				}
				e, err := event.Decode[event.Enqueued](msgs[0].Data)
				if err != nil || e.Grant != "g1" || e.Month != "2026-11" {
					t.Errorf("event carries %+v, %v", e, err)
				}
				return engine.Commit(ctx, msgs)
			})
			_, err := c.Enqueue(t.Context(), cmd)
			if test.err == nil && err != nil || test.err != nil && !fault.Is(err, test.kind) {
				t.Errorf("got %v, want %q", err, test.kind)
			}
			want := []request.Grant{{ID: "g1", Account: account.ID, Month: "2026-11", Count: 2, Leader: 5}}
			if diff := cmp.Diff(want, meanwhile.Grants); diff != "" {
				t.Errorf("open while it was stored (-want +got):\n%s", diff)
			}
			after, _ := c.OpenGrants(t.Context(), request.OpenGrants{Leader: 5})
			if len(q.released) != test.released || len(after.Grants) != test.open || c.Idle() != (test.open == 0) {
				t.Errorf("got %d released and %d open, want %d and %d", len(q.released), len(after.Grants), test.released, test.open)
			}
		})
	}
}

// Who has answered a newer leader uses no grant of an older one: the newer one does not count it.
func TestCore_Enqueue_OlderLeader(t *testing.T) {
	c, q, cmd := withQuota(t)
	for _, leader := range []uint64{6, 4} { // the second one is late
		if _, err := c.OpenGrants(t.Context(), request.OpenGrants{Leader: leader}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Enqueue(t.Context(), cmd); !errors.Is(err, errNoQuota) {
		t.Errorf("under the older leader: got %v", err)
	}
	q.mu.Lock()
	q.leader = 6
	q.mu.Unlock()
	if _, err := c.Enqueue(t.Context(), cmd); err != nil {
		t.Errorf("under the newer leader: got %v", err)
	}
	if got := stored(t, c, allMessages); got != 2 {
		t.Errorf("got %d stored, want 2", got)
	}
}

func TestCore_Enqueue_NoQuota(t *testing.T) {
	c := newCore(t)
	cmd := drafts(1)
	limited := *account
	limited.Plan.Limit = 1
	cmd.Caller.Account = &limited
	_, err := c.Enqueue(t.Context(), cmd)
	if f := fault.As(err); !errors.Is(err, errNoQuota) || f.RetryAfter != retrySoon {
		t.Errorf("got %v", err)
	}
}
