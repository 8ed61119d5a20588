package messages

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

var lane = streams.Lane{Priority: streams.Normal}

// drafts makes messages of an account that may enqueue.
func drafts(n int) Enqueue {
	cmd := Enqueue{Caller: access.Caller{Account: account, Subscribed: true}}
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

func TestEnqueue_StoresInOrder(t *testing.T) {
	c := newMessages(t)
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
			Until: got.Until, // TestEnqueue_Times
		}
		if got != want || msg.Subject != streams.EnqueueSubject(0, account.ID, lane) || msg.Header.Get("Nats-Msg-Id") != account.ID.String()+"/"+id.String() {
			t.Fatalf("message %d: got %+v under %s", i, got, msg.Subject)
		}
	}
}

func TestEnqueue_Lanes(t *testing.T) {
	c := newMessages(t)
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

func TestEnqueue_Key(t *testing.T) {
	c := newMessages(t)
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
func TestEnqueue_KeyTakenMeanwhile(t *testing.T) {
	c := newMessages(t)
	other := newMessagesOn(t, c.bus, 1)
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
func TestEnqueue_KeyAfterLostAnswer(t *testing.T) {
	for name, lost := range map[string]error{"repeat refused": &bus.WrongLast{Last: 1}, "unknown": bus.ErrUnknownOutcome} {
		t.Run(name, func(t *testing.T) {
			c := newMessages(t)
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
			c := newMessages(t)
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
func TestEnqueue_IDsTaken(t *testing.T) {
	c := newMessages(t)
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

func TestEnqueue_NoSubscription(t *testing.T) {
	c := newMessages(t)
	cmd := drafts(1)
	cmd.Caller.Subscribed = false
	if _, err := c.Enqueue(t.Context(), cmd); !fault.Is(err, fault.Forbidden) || fault.As(err).Code != "subscription_required" {
		t.Errorf("got %v", err)
	}
}

// A key that was taken, by nobody who can be found, is looked for so long and no longer.
func TestEnqueue_KeyOfNobody(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newMessages(t)
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

// A request has 1 to 1,000 messages, whatever its dialect makes of it.
func TestEnqueue_Bounds(t *testing.T) {
	c := newMessages(t)
	for _, n := range []int{0, MaxDrafts + 1} {
		if _, err := c.Enqueue(t.Context(), drafts(n)); err == nil {
			t.Errorf("%d messages were accepted", n)
		}
	}
	if got := stored(t, c, allMessages); got != 0 {
		t.Errorf("got %d messages stored", got)
	}
}

// Without room for messages nothing is asked of quota and nothing stored; what was answered before is answered, and
// reports are stored.
func TestEnqueue_NoRoom(t *testing.T) {
	c, quota, limited := withQuota(t)
	first, err := c.Enqueue(t.Context(), keyed(1, "k", "hash"))
	if err != nil {
		t.Fatal(err)
	}
	c.room = func() error { return fmt.Errorf("%w: a disk", bus.ErrFull) }
	for name, cmd := range map[string]Enqueue{"limited": limited, "keyed": keyed(1, "other", "hash"), "plain": drafts(1)} {
		_, err := c.Enqueue(t.Context(), cmd)
		if f := fault.As(err); f == nil || f.Kind != fault.Full || f.Code != "queue_full" || f.RetryAfter < time.Second {
			t.Errorf("%s: got %v, want queue_full and when to come again", name, err)
		}
	}
	// A grant would be open, or given back.
	if got := stored(t, c, allMessages); got != 1 || !c.Idle() || len(quota.released) != 0 {
		t.Errorf("got %d messages stored, idle %t, %d grants released, want the first one and no grant", got, c.Idle(), len(quota.released))
	}
	if again, err := c.Enqueue(t.Context(), keyed(1, "k", "hash")); err != nil || !again.Replayed || again.IDs[0] != first.IDs[0] {
		t.Errorf("repeat: got %+v, %v, want the first answer", again, err)
	}
	if _, err := c.Report(t.Context(), reports(2)); err != nil {
		t.Errorf("report: %v", err)
	}
	c.room = func() error { return fmt.Errorf("%w: a disk", bus.ErrNotStored) }
	if _, err := c.Enqueue(t.Context(), drafts(1)); !fault.Is(err, fault.Unavailable) || fault.As(err).Code != "not_stored" {
		t.Errorf("got %v, want not_stored", err)
	}
	c.room = func() error { return nil }
	if _, err := c.Enqueue(t.Context(), drafts(1)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
