package core

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// A session that is ended at one ingress has ended at the others, at those that start later too.
func TestCore_EndSession_Elsewhere(t *testing.T) {
	c := newCore(t)
	putAccount(t, c, shopLogin(t))
	running := newCoreOn(t, c.bus, 1)
	login := admitted(t, c, "shop", "correct horse")
	tokens, err := c.BeginSession(t.Context(), login, time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.BeginSession(t.Context(), login, time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EndSession(t.Context(), login, tokens.ID); err != nil {
		t.Fatal(err)
	}
	later := newCoreOn(t, c.bus, 2)
	if _, _, err := later.AdmitSession(t.Context(), tokens.Access, Posting); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("at an ingress that started later: got %v, want a refusal", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for { // until it has heard of it
		_, _, err := running.AdmitSession(ctx, tokens.Access, Posting)
		if fault.Is(err, fault.Unauthenticated) {
			break
		}
		if err != nil || ctx.Err() != nil {
			t.Fatalf("at an ingress that was running: got %v, want a refusal", err)
		}
	}
	for _, at := range []*Core{c, running, later} {
		if _, _, err := at.AdmitSession(t.Context(), other.Access, Posting); err != nil {
			t.Errorf("another session of the login: %v", err)
		}
		renewing := Session{Caller: login}
		if _, err := at.RenewSession(t.Context(), renewing, tokens.Renew); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("renewed after its end: got %v, want a refusal", err)
		}
	}
}

// A request that stores nothing gives its grant back, whoever has its key.
func TestCore_Enqueue_GrantOfAnothersKey(t *testing.T) {
	for name, hash := range map[string]string{"the same request": "hash", "another request": "another"} {
		t.Run(name, func(t *testing.T) {
			c, q, cmd := withQuota(t)
			other := newCoreOn(t, c.bus, 1)
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
func TestCore_Enqueue_NoGrantForARepeat(t *testing.T) {
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

func mustHaveReleased(t *testing.T, c *Core, q *quota, want ...string) {
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
