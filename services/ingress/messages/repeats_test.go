package messages

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// What is remembered is bounded, of an account and of all, and ends.
func TestRepeats_Bounded(t *testing.T) {
	r, now := newRepeats(), time.Now()
	some := func(n, from int) []entry {
		all := make([]entry, n)
		for i := range all {
			all[i] = entry{Report: event.Report{ID: streams.MessageID(from + i), State: streams.Delivered}}
		}
		return all
	}
	remembered := func() (n int) {
		for _, t := range r.accounts {
			n += len(t.recent) + len(t.before)
		}
		return n
	}
	for i := range 2 * maxRecalled / 1000 {
		r.remember(1, some(1000, i*1000), now)
	}
	if got := remembered(); got != maxRecalled || got != r.remembered {
		t.Errorf("of one account: %d, counted as %d, want %d", got, r.remembered, maxRecalled)
	}
	for a := range streams.AccountID(30) {
		now = now.Add(time.Second)
		for i := range maxRecalled / 1000 {
			r.remember(a+2, some(1000, i*1000), now)
		}
	}
	if got := remembered(); got != maxRecalledAll || got != r.remembered {
		t.Errorf("of all: %d, counted as %d, want %d", got, r.remembered, maxRecalledAll)
	}
	if r.take(2, some(1, 5), now) || !r.take(31, some(1, 5), now) {
		t.Error("what had room is to be known, and what had none is not")
	}
	for range 4 {
		now = now.Add(repeatWithin)
		r.isStored(9999, some(1, 1)[0], now)
	}
	if got := remembered(); got != 0 || r.remembered != 0 {
		t.Errorf("later: %d, counted as %d, want none", got, r.remembered)
	}
	now = now.Add(24 * time.Hour)
	r.isStored(9999, some(1, 1)[0], now)
	if got := len(r.accounts); got > 1 {
		t.Errorf("%d accounts are remembered", got)
	}
}

// A report is known for a minute, to the moment, and what it said counts.
func TestRepeats_Remembers(t *testing.T) {
	r, begun := newRepeats(), time.Now()
	one := entry{Report: event.Report{ID: 1, State: streams.Sent}}
	other := entry{Report: event.Report{ID: 1, State: streams.Delivered}}
	never := entry{Report: event.Report{ID: 2}} // whose state is that of a word that was never said
	r.remember(7, []entry{one}, begun)
	for _, step := range []struct {
		after  time.Duration
		stored bool
	}{{0, true}, {repeatWithin - 1, true}, {repeatWithin, false}, {2 * repeatWithin, false}} {
		now := begun.Add(step.after)
		if got := r.isStored(7, one, now); got != step.stored {
			t.Errorf("after %v: got %t, want %t", step.after, got, step.stored)
		}
		if r.isStored(7, other, now) || r.isStored(7, never, now) || r.isStored(8, one, now) {
			t.Errorf("after %v: what was not said is taken for stored", step.after)
		}
	}
	// What was said before the last two minutes began is not kept at all.
	r.remember(7, []entry{one}, begun.Add(4*repeatWithin))
	r.isStored(7, one, begun.Add(6*repeatWithin))
	if kept := r.accounts[7]; len(kept.recent)+len(kept.before) != 0 || r.remembered != 0 {
		t.Errorf("got %d and %d reports kept, counted as %d, want none", len(kept.recent), len(kept.before), r.remembered)
	}
}

// Reports that change nothing use an account's share up, one each, and it comes back through the day.
func TestRepeats_Share(t *testing.T) {
	r, now := newRepeats(), time.Now()
	again := func(id int) bool {
		return r.mayRepeat(7, entry{Report: event.Report{ID: streams.MessageID(id), State: streams.Sent}}, now)
	}
	for i := range maxIdle {
		if !again(i) {
			t.Fatalf("report %d was refused", i)
		}
	}
	if again(maxIdle) {
		t.Error("one more than its share was stored")
	}
	if now = now.Add(-time.Hour); again(maxIdle) {
		t.Error("its share came back when the clock went back")
	}
	if now = now.Add(time.Hour + 24*time.Hour/maxIdle + time.Millisecond); !again(maxIdle) {
		t.Error("its share does not come back")
	}
	if again(maxIdle + 1) {
		t.Error("more of it came back than of that time")
	}
}

// standIn is a dispatcher that knows some messages and folds what it is asked about at once.
type standIn struct {
	t      *testing.T
	c      *Messages
	known  map[streams.MessageID]streams.State
	folded uint64
	asked  int // previews
}

func newStandIn(t *testing.T, c *Messages, ids ...streams.MessageID) *standIn {
	s := &standIn{t: t, c: c, known: map[streams.MessageID]streams.State{}}
	for _, id := range ids {
		s.known[id] = streams.Leased
	}
	serve(t, c.bus, request.DispatcherPreview(0), s.preview)
	serve(t, c.bus, request.DispatcherChanged(0), s.changed)
	return s
}

func (s *standIn) preview(_ context.Context, q request.Preview) (answer request.Changed, _ error) {
	s.asked++
	for _, said := range q.Messages {
		state, ok := s.known[said.ID]
		answer.Messages = append(answer.Messages, request.Change{Known: ok, Changed: ok && moves(state, said.State), State: state})
	}
	return answer, nil
}

func moves(from, to streams.State) bool {
	return to.Success() && to > from || to == streams.Failed && from == streams.Leased
}

func (s *standIn) changed(ctx context.Context, q request.ChangedBy) (answer request.Changed, _ error) {
	m, err := s.c.bus.Get(ctx, streams.StatusStream(0), q.Seq)
	if err != nil {
		return answer, err
	}
	e, err := event.Decode[event.Reported](m.Data)
	if err != nil {
		return answer, err
	}
	for _, said := range e.Messages {
		state, ok := s.known[said.ID]
		change := request.Change{Known: ok, Changed: ok && moves(state, said.State), State: state}
		if change.Changed {
			change.State = said.State
			s.known[said.ID] = said.State
		}
		answer.Messages = append(answer.Messages, change)
	}
	return answer, nil
}

// saidInStream counts the items of all stored reports.
func saidInStream(t *testing.T, c *Messages) (n int) {
	t.Helper()
	stream, err := c.bus.JS.Stream(t.Context(), streams.StatusStream(0))
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		e, err := event.Decode[event.Reported](m.Data)
		if err != nil {
			t.Fatal(err)
		}
		n += len(e.Messages)
	}
	return n
}

// A repeat is answered as it always was, and leaves nothing in the stream.
func TestReport_Repeats(t *testing.T) {
	c := newMessages(t)
	cmd := reports(streams.Delivered, streams.Delivered, streams.Failed)
	var ids []streams.MessageID
	for _, item := range cmd.Items {
		id, _ := streams.ParseMessageID(item.ID)
		ids = append(ids, id)
	}
	d := newStandIn(t, c, ids...)
	got, err := c.Report(t.Context(), cmd)
	if err != nil || got.Updated != 3 || d.asked != 0 {
		t.Fatalf("the first: got %+v, %v, after %d questions", got, err, d.asked)
	}
	for range 50 {
		got, err := c.Report(t.Context(), cmd)
		if err != nil || got.Updated != 0 || got.Problems != nil {
			t.Fatalf("a repeat: got %+v, %v", got, err)
		}
	}
	if n := saidInStream(t, c); n != 3 {
		t.Errorf("%d items are stored, want 3", n)
	}
	// What changes something is stored, however soon after the same.
	d.known[ids[2]] = streams.Leased
	if got, err := c.Report(t.Context(), cmd); err != nil || got.Updated != 1 {
		t.Errorf("failed in the next round: got %+v, %v", got, err)
	}
	if n := saidInStream(t, c); n != 4 {
		t.Errorf("%d items are stored, want 4", n)
	}
	// A failure of what is delivered has its problem.
	cmd.Items[0].State = streams.Failed
	for range 3 {
		got, err := c.Report(t.Context(), cmd)
		if want := (Reported{Problems: []Problem{{0, Succeeded}}}); err != nil || !cmp.Equal(want, got) {
			t.Errorf("failed after delivered: got %+v, %v", got, err)
		}
	}
	if n := saidInStream(t, c); n != 4 {
		t.Errorf("%d items are stored, want 4", n)
	}
}

// What changes nothing, and yet may once matter, is stored once a minute.
func TestReport_RepeatsOnceAMinute(t *testing.T) {
	c := newMessages(t)
	now := time.Now()
	c.now = func() time.Time { return now }
	cmd := reports(streams.Sent)
	id, _ := streams.ParseMessageID(cmd.Items[0].ID)
	newStandIn(t, c, id)
	for _, after := range []time.Duration{0, 30 * time.Second, 29 * time.Second, time.Second, 59 * time.Second, time.Second, 10 * time.Minute} {
		now = now.Add(after)
		if _, err := c.Report(t.Context(), cmd); err != nil {
			t.Fatal(err)
		}
	}
	if n := saidInStream(t, c); n != 4 {
		t.Errorf("%d items are stored, want one at 0:00, 1:00, 2:00 and 12:00", n)
	}
}

// What was delivered earlier is not stored beside a repeat.
func TestReport_DeliveredLongAgo(t *testing.T) {
	c := newMessages(t)
	now := time.Now()
	c.now = func() time.Time { return now }
	cmd := reports(streams.Delivered, streams.Sent)
	a, _ := streams.ParseMessageID(cmd.Items[0].ID)
	b, _ := streams.ParseMessageID(cmd.Items[1].ID)
	newStandIn(t, c, a, b)
	for _, items := range [][]Item{cmd.Items[:1], cmd.Items[1:], cmd.Items} {
		if _, err := c.Report(t.Context(), Report{Caller: cmd.Caller, Items: items}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(40 * time.Second)
	}
	if n := saidInStream(t, c); n != 2 {
		t.Errorf("%d items are stored, want each once", n)
	}
}

// What an account invents is stored up to a bound, and answered as ever.
func TestReport_Invented(t *testing.T) {
	c := newMessages(t)
	now := time.Now()
	c.now = func() time.Time { return now }
	d := newStandIn(t, c)
	invent := func(times int) {
		for range times {
			cmd := Report{Caller: access.Caller{Account: account}}
			for range 100 {
				d.folded++
				cmd.Items = append(cmd.Items, Item{ID: (streams.FirstIDAt(now.Add(-time.Hour)) + streams.MessageID(d.folded)).String(), State: streams.Delivered})
			}
			got, err := c.Report(t.Context(), cmd)
			if err != nil || got.Updated != 0 || len(got.Problems) != 100 || got.Problems[99] != (Problem{99, Unknown}) {
				t.Fatalf("got %d updated, %d problems, %v", got.Updated, len(got.Problems), err)
			}
		}
	}
	c.repeats.take(account.ID, make([]entry, maxIdle-3*100), now) // what was invented before
	invent(6)
	if n := saidInStream(t, c); n != 3*100 {
		t.Errorf("%d items are stored, want 300", n)
	}
	// The true report of such an account is stored, and other accounts are asked nothing.
	cmd := reports(streams.Delivered)
	id, _ := streams.ParseMessageID(cmd.Items[0].ID)
	d.known[id] = streams.Leased
	asked := d.asked
	if got, err := c.Report(t.Context(), cmd); err != nil || got.Updated != 1 || d.asked != asked+1 {
		t.Errorf("a true one: got %+v, %v, after %d questions", got, err, d.asked-asked)
	}
	cmd.Caller.Account = &streams.Account{ID: streams.AccountIDOf("other")}
	if _, err := c.Report(t.Context(), cmd); err != nil || d.asked != asked+1 {
		t.Errorf("another account: %v, after %d questions", err, d.asked-asked-1)
	}
	before := saidInStream(t, c)
	now = now.Add(24 * time.Hour / 100) // in which a hundredth of a day's comes back
	invent(3)
	if n := saidInStream(t, c) - before; n != maxIdle/100 {
		t.Errorf("%d items are stored later, want %d", n, maxIdle/100)
	}
}

// While no dispatcher answers, what may be new is stored.
func TestReport_RepeatsUnanswered(t *testing.T) {
	c := newMessages(t)
	cmd := reports(streams.Delivered, streams.Failed)
	for range 3 {
		if got, err := c.Report(t.Context(), cmd); err != nil || got.Updated != 2 {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if n := saidInStream(t, c); n != 4 {
		t.Errorf("%d items are stored, want the success once and the failure three times", n)
	}
}
