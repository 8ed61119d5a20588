package messages

import (
	"context"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Every message has an end, and is forgotten no sooner.
func TestEnqueue_Times(t *testing.T) {
	c := newMessages(t)
	now := time.Now().UTC()
	c.now = func() time.Time { return now }
	ms := now.Truncate(time.Millisecond)
	plan := *account
	plan.Plan.Validity = time.Hour
	for what, test := range map[string]struct {
		cmd        Enqueue
		due, until time.Time
		refused    bool
	}{
		"nothing":                  {Enqueue{}, time.Time{}, ms.Add(72 * time.Hour), false},
		"the account's":            {Enqueue{Caller: access.Caller{Account: &plan}}, time.Time{}, ms.Add(time.Hour), false},
		"an end":                   {Enqueue{Until: now.Add(time.Minute)}, time.Time{}, ms.Add(time.Minute), false},
		"an end that is over":      {Enqueue{Until: now.Add(-time.Minute)}, time.Time{}, ms.Add(-time.Minute), false},
		"the furthest end":         {Enqueue{Until: ms.Add(7 * 24 * time.Hour)}, time.Time{}, ms.Add(7 * 24 * time.Hour), false},
		"further":                  {Enqueue{Until: ms.Add(7*24*time.Hour + time.Second)}, time.Time{}, time.Time{}, true},
		"due":                      {Enqueue{Due: now.Add(time.Hour)}, ms.Add(time.Hour), ms.Add(73 * time.Hour), false},
		"due already":              {Enqueue{Due: now.Add(-time.Hour)}, time.Time{}, ms.Add(72 * time.Hour), false},
		"due as late as it may be": {Enqueue{Due: ms.Add(21 * 24 * time.Hour), Until: ms.Add(28 * 24 * time.Hour)}, ms.Add(21 * 24 * time.Hour), ms.Add(28 * 24 * time.Hour), false},
		"due later":                {Enqueue{Due: now.Add(21*24*time.Hour + time.Second)}, time.Time{}, time.Time{}, true},
		"valid longer after it":    {Enqueue{Due: ms.Add(time.Hour), Until: ms.Add(7*24*time.Hour + time.Hour + time.Second)}, time.Time{}, time.Time{}, true},
	} {
		cmd := drafts(1)
		cmd.Due, cmd.Until = test.cmd.Due, test.cmd.Until
		if test.cmd.Caller.Account != nil {
			cmd.Caller.Account = test.cmd.Caller.Account
		}
		accepted, err := c.Enqueue(t.Context(), cmd)
		if test.refused {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: got %v, want a refusal", what, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		msg, err := c.bus.Get(t.Context(), streams.EnqueueStream(0), accepted.First)
		if err != nil {
			t.Fatal(err)
		}
		got, err := event.Decode[event.Enqueued](msg.Data)
		scheduled := msg.Subject == streams.ScheduledSubject(0, account.ID)
		if err != nil || !got.Due.Equal(test.due) || !got.Until.Equal(test.until) || scheduled == test.due.IsZero() {
			t.Errorf("%s: got due %v, until %v under %s, %v; want %v, %v", what, got.Due, got.Until, msg.Subject, err, test.due, test.until)
		}
	}
}

// A group's messages name its first one, which has the sender's id; it is taken from then on.
func TestEnqueue_Named(t *testing.T) {
	c := newMessages(t)
	serveFind(t, c)
	cmd := drafts(3)
	cmd.Group, cmd.Name = true, "order-1"
	accepted, err := c.Enqueue(t.Context(), cmd)
	if err != nil {
		t.Fatal(err)
	}
	for i := range accepted.IDs {
		msg, err := c.bus.Get(t.Context(), streams.EnqueueStream(0), accepted.First+uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		got, err := event.Decode[event.Enqueued](msg.Data)
		if err != nil || got.Group != accepted.IDs[0] || (got.Name == "order-1") != (i == 0) {
			t.Errorf("message %d: got %v, group %s, name %q", i, err, got.Group, got.Name)
		}
	}
	if _, err := c.Enqueue(t.Context(), cmd); !fault.Is(err, fault.Conflict) {
		t.Errorf("the same again: got %v, want a conflict", err)
	}
	// One whose marker has run out is known to the dispatchers.
	cmd.Name = "old"
	if _, err := c.Enqueue(t.Context(), cmd); !fault.Is(err, fault.Conflict) {
		t.Errorf("an older one: got %v, want a conflict", err)
	}
	alone := drafts(1)
	alone.Group, alone.Name = true, "order-2"
	if accepted, err = c.Enqueue(t.Context(), alone); err != nil {
		t.Fatal(err)
	}
	msg, err := c.bus.Get(t.Context(), streams.EnqueueStream(0), accepted.First)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := event.Decode[event.Enqueued](msg.Data); err != nil || got.Group != 0 || got.Name != "order-2" {
		t.Errorf("alone: got %v, group %s, name %q", err, got.Group, got.Name)
	}
}

// serveFind answers lookups as a dispatcher that knows of a group named old.
func serveFind(t *testing.T, c *Messages) {
	t.Helper()
	serve(t, c.bus, request.DispatcherFind(0), func(_ context.Context, q request.Find) (request.Found, error) {
		if q.Account != account.ID || q.Ref != "old" {
			return request.Found{}, nil
		}
		return request.Found{Group: &request.Group{ID: 7, Name: "old"}}, nil
	})
}
