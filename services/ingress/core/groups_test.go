package core

import (
	"context"
	"errors"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// parts is a dispatcher whose answers have room for two messages of a group of five. away makes it answer only the
// first question.
func parts(t *testing.T, c *Core, away bool) {
	t.Helper()
	all := make([]request.Member, 5)
	for i := range all {
		all[i] = request.Member{ID: streams.MessageID(i + 10), Seq: uint64(i + 100), State: streams.Pending}
	}
	after := func(id streams.MessageID) request.Group {
		from := 0
		for from < len(all) && all[from].ID <= id {
			from++
		}
		to := min(from+2, len(all))
		return request.Group{ID: 10, Name: "order", State: streams.Pending, Messages: all[from:to], More: to < len(all)}
	}
	serve(t, c.bus, request.DispatcherFind(0), func(_ context.Context, q request.Find) (request.Found, error) {
		switch {
		case away && q.After != 0:
			return request.Found{}, fault.New(fault.Unavailable, "away", "Away")
		case q.Account != account.ID, q.Ref != "" && q.Ref != "order" && q.After == 0:
			return request.Found{}, nil
		}
		group := after(q.After)
		return request.Found{Group: &group}, nil
	})
	serve(t, c.bus, request.DispatcherBrowse(0), func(context.Context, request.Browse) (request.Browsed, error) {
		return request.Browsed{Groups: []request.Group{after(0), after(12)}, Total: 7}, nil
	})
}

// A group is given whole, in however many answers it comes.
func TestCore_Group_Whole(t *testing.T) {
	c, caller := newCore(t), Caller{Account: account}
	parts(t, c, false)
	group, err := c.Group(t.Context(), caller, "order")
	if err != nil || len(group.Messages) != 5 || group.Messages[4].ID != 14 || group.Name != "order" {
		t.Errorf("got %+v, %v, want five messages", group, err)
	}
	if _, err := c.Group(t.Context(), caller, "unknown"); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown: got %v", err)
	}
	groups, total, err := c.Groups(t.Context(), Browse{Caller: caller, Limit: 10})
	if err != nil || total != 7 || len(groups) != 2 || len(groups[0].Messages) != 5 || len(groups[1].Messages) != 2 {
		t.Errorf("got %+v, %d, %v, want groups of five and two messages, of seven", groups, total, err)
	}
	for id, want := range map[streams.MessageID]uint64{10: 100, 13: 103} {
		if got, err := c.Sequence(t.Context(), caller, id); err != nil || got != want {
			t.Errorf("sequence of %d: got %d, %v, want %d", id, got, err, want)
		}
	}
}

// Half a group is none.
func TestCore_Group_NotWhole(t *testing.T) {
	c, caller := newCore(t), Caller{Account: account}
	parts(t, c, true)
	if group, err := c.Group(t.Context(), caller, "order"); !fault.Is(err, fault.Unavailable) || len(group.Messages) != 0 {
		t.Errorf("got %+v, %v, want a refusal", group, err)
	}
	if groups, _, err := c.Groups(t.Context(), Browse{Caller: caller, Limit: 10}); !fault.Is(err, fault.Unavailable) || len(groups) != 0 {
		t.Errorf("got %+v, %v, want a refusal", groups, err)
	}
}

// What a dispatcher finds wrong with a question is told as it is.
func TestCore_Group_Faults(t *testing.T) {
	c, caller := newCore(t), Caller{Account: account}
	serve(t, c.bus, request.DispatcherFind(0), func(context.Context, request.Find) (request.Found, error) {
		return request.Found{}, fault.New(fault.Invalid, "odd", "Odd")
	})
	_, err := c.Group(t.Context(), caller, "order")
	if f := fault.As(err); f == nil || f.Code != "odd" {
		t.Errorf("got %v", err)
	}
	serve(t, c.bus, request.DispatcherBrowse(0), func(context.Context, request.Browse) (request.Browsed, error) {
		return request.Browsed{}, errors.New("broken")
	})
	if groups, _, err := c.Groups(t.Context(), Browse{Caller: caller, Limit: 10}); err == nil {
		t.Errorf("got %+v, want an error", groups)
	}
}
