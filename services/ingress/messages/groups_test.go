package messages

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// parts is a dispatcher whose answers have room for two messages of a group of five. away makes it answer only the
// first question.
func parts(t *testing.T, c *Messages, away bool) {
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
func TestGroup_Whole(t *testing.T) {
	c, caller := newMessages(t), access.Caller{Account: account}
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
func TestGroup_NotWhole(t *testing.T) {
	c, caller := newMessages(t), access.Caller{Account: account}
	parts(t, c, true)
	if group, err := c.Group(t.Context(), caller, "order"); !fault.Is(err, fault.Unavailable) || len(group.Messages) != 0 {
		t.Errorf("got %+v, %v, want a refusal", group, err)
	}
	if groups, _, err := c.Groups(t.Context(), Browse{Caller: caller, Limit: 10}); !fault.Is(err, fault.Unavailable) || len(groups) != 0 {
		t.Errorf("got %+v, %v, want a refusal", groups, err)
	}
}

// What a dispatcher finds wrong with a question is told as it is.
func TestGroup_Faults(t *testing.T) {
	c, caller := newMessages(t), access.Caller{Account: account}
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

func TestSequence(t *testing.T) {
	c := newMessages(t)
	caller := access.Caller{Account: account}
	if _, err := c.Sequence(t.Context(), caller, 7); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without a dispatcher: got %v, want Unavailable", err)
	}
	serve(t, c.bus, request.DispatcherFind(0), func(_ context.Context, q request.Find) (request.Found, error) {
		if q.Account != account.ID || q.Ref != streams.MessageID(7).String() {
			return request.Found{}, nil
		}
		return request.Found{Group: &request.Group{ID: 6, Messages: []request.Member{{ID: 6, Seq: 4}, {ID: 7, Seq: 5}}}}, nil
	})
	if got, err := c.Sequence(t.Context(), caller, 7); got != 5 || err != nil {
		t.Errorf("got %d, %v, want 5", got, err)
	}
	if _, err := c.Sequence(t.Context(), caller, 8); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown: got %v, want NotFound", err)
	}
}

func TestGroup_MuteDispatcher(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newMessages(t)
		serve(t, c.bus, request.DispatcherFind(0), func(ctx context.Context, _ request.Find) (request.Found, error) {
			<-ctx.Done()
			time.Sleep(time.Minute)
			return request.Found{}, nil
		})
		begun := time.Now()
		_, err := c.Group(t.Context(), access.Caller{Account: account}, "order-1")
		if f := fault.As(err); f == nil || f.Code != "dispatcher_unavailable" || time.Since(begun) != 15*time.Second {
			t.Errorf("got %v after %s, want a refusal after 15s", err, time.Since(begun))
		}
	})
}

// What an account looks up waits for its own: others are answered meanwhile.
func TestGroup_Crowd(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newMessages(t)
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
				if _, err := c.Group(t.Context(), access.Caller{Account: account}, "order-1"); fault.As(err).Code != "not_found" {
					t.Errorf("got %v, want not_found in the end", err)
				}
			})
		}
		synctest.Wait()
		begun := time.Now()
		if _, err := c.Group(t.Context(), access.Caller{Account: other}, "order-1"); fault.As(err).Code != "not_found" || time.Since(begun) != 900*time.Millisecond {
			t.Errorf("another account: got %v after %v, want not_found after 900ms", err, time.Since(begun))
		}
		wg.Wait()
		if most[account.ID] != lookupsAtATime {
			t.Errorf("got %d of an account at a time, want %d", most[account.ID], lookupsAtATime)
		}
	})
}
