package operator

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/services/dispatcher"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const shards = streams.Shards(2)

// newFinder makes a finder over a real engine with a dispatcher.
func newFinder(t *testing.T) finder {
	t.Helper()
	b := bustest.New(t)
	d := streams.Deployment{Shards: shards, Replicas: 1, EnqueueMaxBytes: 1 << 20, StatusMaxBytes: 1 << 20}
	if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	run := dispatcher.New(dispatcher.DefaultConfig(), dispatcher.Deps{
		Deps: service.Deps{Bus: b, Dir: t.TempDir(), Log: zap.NewNop(), Now: time.Now}, Shards: shards,
	})
	go func() { ended <- service.Run(ctx, run) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("dispatcher ended: %v", err)
		}
	})
	book, err := accounts.Open(t.Context(), b, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, shard := range shards.All() {
		await(t, b, shard)
	}
	return finder{bus: b, book: book, shards: shards}
}

// await waits until a dispatcher of the shard answers.
func await(t *testing.T, b *bus.Bus, shard streams.Shard) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		if _, err := bus.Call[request.Shown](ctx, b, request.DispatcherShow(shard), request.Show{}); err == nil {
			return
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

// accountOn makes an account that the shard has.
func (f finder) accountOn(t *testing.T, shard streams.Shard, name string) streams.Account {
	t.Helper()
	for i := 0; ; i++ {
		full := name + strconv.Itoa(i)
		if f.shards.Of(streams.AccountIDOf(full)) == shard {
			created, err := f.book.Create(t.Context(), accounts.Spec{Name: full, Plan: accounts.DefaultPlan()})
			if err != nil {
				t.Fatal(err)
			}
			return created.Account
		}
	}
}

// store stores an event and gives the number that an SMS Nodes sender would get.
func (f finder) store(t *testing.T, subject string, shard streams.Shard, e event.Event) string {
	t.Helper()
	m, err := event.Message(subject, e)
	if err != nil {
		t.Fatal(err)
	}
	ack, err := f.bus.JS.PublishMsg(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(ack.Sequence*64 + uint64(shard))
}

func TestFind(t *testing.T) {
	f := newFinder(t)
	ids := streams.NewIDs(time.Now, 5, time.Time{})
	shop, other := f.accountOn(t, 0, "shop"), f.accountOn(t, 1, "other")
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	enqueued := func(id, group streams.MessageID, name string) event.Enqueued {
		return event.Enqueued{ID: id, Group: group, Name: name, Until: until, Phone: "+1234567890", Text: "secret-text", Month: "2026-11"}
	}
	subject := func(a streams.Account) string {
		return streams.EnqueueSubject(f.shards.Of(a.ID), a.ID, streams.Lane{Priority: streams.Normal})
	}
	first, second, alone, later, same := ids.Message(), ids.Message(), ids.Message(), ids.Message(), ids.Message()

	f.store(t, streams.BarrierSubject(1), 1, event.Barrier{Claim: 1})
	numbered := f.store(t, subject(other), 1, enqueued(alone, 0, "order-1"))
	f.store(t, subject(shop), 0, enqueued(first, first, "order-2"))
	f.store(t, subject(shop), 0, enqueued(second, first, ""))
	scheduled := enqueued(later, 0, "64") // as if it were a number
	scheduled.Due, scheduled.Until = until, until.Add(time.Hour)
	due := f.store(t, streams.ScheduledSubject(0, shop.ID), 0, event.Scheduled{Lane: streams.Lane{}, Enqueued: scheduled})
	f.store(t, subject(shop), 0, enqueued(same, 0, "order-1"))

	tests := []struct {
		name, account, ref string
		want               streams.MessageID
		fails              string
	}{
		{"a message's id", "", second.String(), second, ""},
		{"a message's id in its account", shop.Name, second.String(), second, ""},
		{"a number", "", numbered, alone, ""},
		{"a number in its account", other.Name, numbered, alone, ""},
		{"a scheduled message's number", "", due, later, ""},
		{"a sender's id", "", "order-2", first, ""},
		{"a sender's id in its account", shop.Name, "order-1", same, ""},
		{"the same id in another account", other.Name, "order-1", alone, ""},
		{"a sender's id that is a number too", shop.Name, "64", later, ""},
		{"the number that is a sender's id too", "", "64", first, ""},
		{"two senders' id", "", "order-1", 0, "is known in several accounts, which are " + other.Name + ", " + shop.Name + ": give --account"},
		{"an unknown id", "", "0000000000000001", 0, "message 0000000000000001 is not known"},
		{"an unknown sender's id", "", "order-3", 0, "message order-3 is not known"},
		{"a message of another account", other.Name, second.String(), 0, "is not known"},
		{"a number of another account", shop.Name, numbered, 0, "is not known"},
		{"a barrier's number", "", "65", 0, "message 65 is not known"},
		{"a number of no shard", "", "66", 0, "message 66 is not known"},
		{"a number beyond the stream", "", "6400", 0, "message 6400 is not known"},
		{"a number below all", "", "1", 0, "message 1 is not known"},
		{"a number beyond all", "", "99999999999999999999", 0, "is not known"},
		{"an unknown account", "nobody", "order-1", 0, `account "nobody" is not known`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := f.find(t.Context(), test.account, test.ref)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("got error %v, want one with %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Message.ID != test.want || len(got.Timeline) == 0 {
				t.Errorf("got message %v with %d events, want %v", got.Message.ID, len(got.Timeline), test.want)
			}
		})
	}

	t.Run("members", func(t *testing.T) {
		shown, err := f.find(t.Context(), "", second.String())
		if err != nil {
			t.Fatal(err)
		}
		members, err := f.members(t.Context(), *shown.Message)
		if err != nil || len(members) != 2 || members[0].ID != first || members[1].State != streams.Pending {
			t.Errorf("got %v, %v, want both of the group", members, err)
		}
	})
	t.Run("print", func(t *testing.T) {
		shown, err := f.find(t.Context(), shop.Name, "64")
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		view := messageView{Message: *shown.Message, AccountName: shop.Name, Timeline: shown.Timeline, Members: []memberView{{ID: first}}}
		view.Group = first
		if err := view.print(&out); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"sender's id  64\n", "group        " + first.String() + "\n", "due          " + formatTime(until) + "\n",
			"valid until  " + formatTime(until.Add(time.Hour)) + "\n", "MESSAGE OF THE GROUP", "state        scheduled\n",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("got a page without %q:\n%s", want, out.String())
			}
		}
		if strings.Contains(out.String(), "secret-text") {
			t.Error("the page has the text")
		}
	})
}

func TestFind_ManyAccounts(t *testing.T) {
	f := newFinder(t)
	for i := range maxAsked + 1 {
		if _, err := f.book.Create(t.Context(), accounts.Spec{Name: fmt.Sprint("a", i), Plan: accounts.DefaultPlan()}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := f.find(t.Context(), "", "order-1")
	if want := "for a sender's id give --account too, there are 1001"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one with %q", err, want)
	}
	if _, err := f.find(t.Context(), "a1000", "order-1"); err == nil || !strings.Contains(err.Error(), "is not known") {
		t.Errorf("in one of them: got error %v, want that it is not known", err)
	}
}
