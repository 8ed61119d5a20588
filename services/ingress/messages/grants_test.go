package messages

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

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
func withQuota(t *testing.T) (*Messages, *quota, Enqueue) {
	t.Helper()
	c, q := newMessages(t), &quota{leader: 5}
	bustest.Run(t, q.run(c.bus))
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
func TestEnqueue_Grant(t *testing.T) {
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
func TestEnqueue_OlderLeader(t *testing.T) {
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

func TestEnqueue_NoQuota(t *testing.T) {
	c := newMessages(t)
	cmd := drafts(1)
	limited := *account
	limited.Plan.Limit = 1
	cmd.Caller.Account = &limited
	_, err := c.Enqueue(t.Context(), cmd)
	if f := fault.As(err); !errors.Is(err, errNoQuota) || f.RetryAfter != retrySoon {
		t.Errorf("got %v", err)
	}
}

// A publish that could not begin within ten seconds of the grant does not begin at all.
func TestEnqueue_Late(t *testing.T) {
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

// A request that stores nothing gives its grant back, whoever has its key.
func TestEnqueue_GrantOfAnothersKey(t *testing.T) {
	for name, hash := range map[string]string{"the same request": "hash", "another request": "another"} {
		t.Run(name, func(t *testing.T) {
			c, q, cmd := withQuota(t)
			other := newMessagesOn(t, c.bus, 1)
			engine := c.enqueue[0]
			c.enqueue[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
				if _, err := other.Enqueue(ctx, keyed(2, "k", hash)); err != nil {
					t.Error(err)
				}
				return engine.Commit(ctx, msgs)
			})
			cmd.Key = keyed(2, "k", "hash").Key
			got, err := c.Enqueue(t.Context(), cmd)
			if hash == "hash" && (err != nil || !got.Replayed) || hash != "hash" && !fault.Is(err, fault.Mismatch) {
				t.Errorf("got %+v, %v", got, err)
			}
			mustHaveReleased(t, c, q, "g1")
			if got := stored(t, c, allMessages); got != 2 {
				t.Errorf("got %d messages, want those of the other ingress", got)
			}
		})
	}
}

// A repeat that came before the first was stored may find no room for two: it gets the first one's answer, and no
// grant stays open.
func TestEnqueue_NoGrantForARepeat(t *testing.T) {
	c, q, cmd := withQuota(t)
	cmd.Key = keyed(2, "k", "hash").Key
	if _, err := c.Enqueue(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	again, err := c.Enqueue(t.Context(), cmd)
	if err != nil || !again.Replayed {
		t.Errorf("got %+v, %v, want the first one's answer", again, err)
	}
	mustHaveReleased(t, c, q)
	// Nor does one stay where the messages cannot be made.
	cmd.Key = &Key{ID: "l", Hash: "hash", Render: func([]streams.MessageID) ([]byte, error) { return nil, errNotWaiting }}
	if _, err := c.Enqueue(t.Context(), cmd); err == nil {
		t.Error("got no error where there is no answer")
	}
	mustHaveReleased(t, c, q, "g2")
}

func mustHaveReleased(t *testing.T, c *Messages, q *quota, want ...string) {
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.released) != len(want) || len(want) == 1 && q.released[0] != want[0] {
		t.Errorf("released: got %v, want %v", q.released, want)
	}
	if open, _ := c.OpenGrants(t.Context(), request.OpenGrants{Leader: 5}); len(open.Grants) != 0 || !c.Idle() {
		t.Errorf("still open: %v", open.Grants)
	}
}

// An answer that gets lost leaves no grant open where the marker shows that the messages are stored.
func TestEnqueue_GrantAfterALostAnswer(t *testing.T) {
	c, q, cmd := withQuota(t)
	cmd.Key = keyed(2, "k", "hash").Key
	engine := c.enqueue[0]
	c.enqueue[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
		if _, err := engine.Commit(ctx, msgs); err != nil {
			t.Error(err)
		}
		return bus.Stored{}, bus.ErrUnknownOutcome
	})
	if got, err := c.Enqueue(t.Context(), cmd); err != nil || got.Replayed {
		t.Errorf("got %+v, %v", got, err)
	}
	mustHaveReleased(t, c, q)
}

// Where a fence cannot be moved, messages may still be under way: no grant may be told to be the last.
func TestOpenGrants_NoFence(t *testing.T) {
	c := newMessages(t)
	c.fences = []*bus.Fence{bus.NewFence(c.bus, streams.EnqueueStream(0))} // which stands nowhere
	if got, err := c.OpenGrants(t.Context(), request.OpenGrants{Leader: 1}); err == nil {
		t.Errorf("got %+v, want an error", got)
	}
}
