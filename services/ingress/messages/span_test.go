package messages

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// knower is a dispatcher that knows some messages, and counts what it is asked.
type knower struct {
	mu            sync.Mutex
	known         map[streams.MessageID]bool
	finds, checks int
	away          bool
}

func newKnower(t *testing.T, c *Messages, known ...streams.MessageID) *knower {
	t.Helper()
	k := &knower{known: map[streams.MessageID]bool{}}
	for _, id := range known {
		k.known[id] = true
	}
	serve(t, c.bus, request.DispatcherFind(0), func(_ context.Context, q request.Find) (found request.Found, _ error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.finds++
		if k.away {
			return found, fault.New(fault.Unavailable, "away", "Away")
		}
		if id, err := streams.ParseMessageID(q.Ref); err == nil && k.known[id] && q.Account == account.ID {
			found.Group = &request.Group{ID: id}
		}
		return found, nil
	})
	serve(t, c.bus, request.DispatcherChanged(0), func(_ context.Context, q request.ChangedBy) (answer request.Changed, _ error) {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.checks++
		for _, id := range q.Messages {
			answer.Messages = append(answer.Messages, request.Change{Known: k.known[id] && q.Account == account.ID})
		}
		return answer, nil
	})
	return k
}

// asked gives how often it was asked since, for the newest id and for all of them.
func (k *knower) asked() [2]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := [2]int{k.finds, k.checks}
	k.finds, k.checks = 0, 0
	return n
}

func itemsOf(ids ...streams.MessageID) (items []Item) {
	for _, id := range ids {
		items = append(items, Item{ID: id.String()})
	}
	return items
}

// Ids newer than all that this ingress knows of are looked for, and those that nobody has are absent.
func TestAbsent_Newer(t *testing.T) {
	c := newMessages(t)
	at := streams.FirstIDAt(time.Now())
	one, two, three, invented := at+1, at+2, at+3, at+4
	k := newKnower(t, c, one, two, three)
	tests := []struct {
		name  string
		ids   []streams.MessageID
		want  []streams.MessageID
		asked [2]int
	}{
		{"no id", nil, nil, [2]int{}},
		{"the newest is unknown", []streams.MessageID{one, invented}, []streams.MessageID{invented}, [2]int{1, 1}},
		{"one that is known by now", []streams.MessageID{one}, nil, [2]int{}},
		{"the newest is known", []streams.MessageID{two, three}, nil, [2]int{1, 0}},
		{"the newest again, and an older one", []streams.MessageID{three, two, at}, nil, [2]int{}},
		{"invented only", []streams.MessageID{invented, invented + 1}, []streams.MessageID{invented, invented + 1}, [2]int{1, 1}},
	}
	for _, test := range tests {
		got := c.absent(t.Context(), account.ID, append(itemsOf(test.ids...), Item{ID: "nonsense"}))
		if ids := slices.Sorted(maps.Keys(got)); !slices.Equal(ids, test.want) {
			t.Errorf("%s: got %v absent, want %v", test.name, ids, test.want)
		}
		if asked := k.asked(); asked != test.asked {
			t.Errorf("%s: asked %v times, want %v", test.name, asked, test.asked)
		}
	}
	k.away = true
	if got := c.absent(t.Context(), account.ID, itemsOf(invented)); len(got) != 0 {
		t.Errorf("without an answer: got %v absent, want none: a report is not to be lost", got)
	}
}

// Ids that this ingress has stored are known without a question.
func TestSpan_Note(t *testing.T) {
	s := newSpan()
	for _, step := range []struct{ saw, newest streams.MessageID }{{7, 7}, {5, 7}, {7, 7}, {9, 9}} {
		if s.note(step.saw); streams.MessageID(s.newest.Load()) != step.newest {
			t.Errorf("after %d: got %d as the newest, want %d", step.saw, s.newest.Load(), step.newest)
		}
	}
}

// What is behind the horizon is absent, which is read again every ten minutes, and is not, without an engine that says so.
func TestAbsent_Horizon(t *testing.T) {
	c := newMessages(t)
	now := time.Now()
	c.now = func() time.Time { return now }
	id := streams.FirstIDAt(now)
	c.ids.note(id + 10)
	absent := func() bool { return c.absent(t.Context(), account.ID, itemsOf(id))[id] }
	if absent() {
		t.Error("absent without any horizon")
	}
	move := func(to time.Time) {
		t.Helper()
		m, err := event.Message(streams.HorizonSubject(0), event.Horizon{Before: to})
		if err == nil {
			_, err = c.status[0].Commit(t.Context(), []*nats.Msg{m})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	move(id.Time())
	if now = now.Add(horizonFor); absent() {
		t.Error("absent though the horizon only reaches it")
	}
	move(id.Time().Add(time.Second))
	if now = now.Add(horizonFor - 1); absent() {
		t.Error("the horizon was read again within ten minutes")
	}
	if now = now.Add(1); !absent() {
		t.Error("not absent behind the horizon")
	}
	if err := c.bus.JS.DeleteStream(t.Context(), streams.StatusStream(0)); err != nil {
		t.Fatal(err)
	}
	if now = now.Add(2 * horizonFor); !absent() {
		t.Error("the last horizon is forgotten when it cannot be read")
	}
}
