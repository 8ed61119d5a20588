package core

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

func TestCore_read(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	c := &Core{}
	at := func(d time.Duration) string { return streams.FirstIDAt(now.Add(d)).String() }
	id := func(d time.Duration) streams.MessageID { return streams.FirstIDAt(now.Add(d)) }
	a, b, gone := at(-time.Hour), at(-time.Minute), at(time.Hour)
	delivered, sent, failed := streams.Delivered, streams.Sent, streams.Failed

	tests := []struct {
		name     string
		items    []Item
		want     []event.Report
		problems []Problem
	}{
		{"plain", []Item{{a, delivered, ""}, {b, failed, "no signal"}},
			[]event.Report{{ID: id(-time.Hour), State: delivered}, {ID: id(-time.Minute), State: failed, Error: "no signal"}}, nil},
		{"no ids", []Item{{"", delivered, ""}, {strings.ToUpper("a1b2c3d4e5f67890"), delivered, ""}, {a + "0", delivered, ""}},
			nil, []Problem{{0, Unknown}, {1, Unknown}, {2, Unknown}}},
		{"absent", []Item{{gone, delivered, ""}, {a, delivered, ""}, {gone, failed, ""}}, []event.Report{{ID: id(-time.Hour), State: delivered}}, []Problem{{0, Unknown}, {2, Unknown}}},
		{"twice the same", []Item{{a, delivered, ""}, {a, delivered, ""}}, []event.Report{{ID: id(-time.Hour), State: delivered}}, nil},
		{"failed, then sent", []Item{{a, failed, ""}, {a, sent, ""}, {a, delivered, ""}, {a, sent, ""}}, []event.Report{{ID: id(-time.Hour), State: delivered}}, nil},
		{"sent, then failed", []Item{{a, sent, ""}, {a, failed, ""}}, []event.Report{{ID: id(-time.Hour), State: sent}}, []Problem{{1, Succeeded}}},
		{"long error", []Item{{a, failed, strings.Repeat("é", 200)}}, []event.Report{{ID: id(-time.Hour), State: failed, Error: strings.Repeat("é", 128)}}, nil},
		{"error cut within a character", []Item{{a, failed, "x" + strings.Repeat("é", 200)}}, []event.Report{{ID: id(-time.Hour), State: failed, Error: "x" + strings.Repeat("é", 127)}}, nil},
		{"error of two lines", []Item{{a, failed, "a\r\nb"}}, []event.Report{{ID: id(-time.Hour), State: failed, Error: "a  b"}}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			all, reported := c.read(test.items, map[streams.MessageID]bool{id(time.Hour): true})
			var got []event.Report
			for _, one := range all {
				got = append(got, one.Report)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("reports (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.problems, reported.Problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	tests := []struct {
		known, changed bool
		state, said    streams.State
		want           Why
		problem        bool
	}{
		{false, false, 0, streams.Delivered, Unknown, true},
		{true, true, streams.Delivered, streams.Delivered, 0, false},
		{true, false, streams.Delivered, streams.Delivered, 0, false},
		{true, false, streams.Delivered, streams.Sent, 0, false},
		{true, false, streams.Failed, streams.Failed, 0, false},
		{true, false, streams.Sent, streams.Failed, Succeeded, true},
		{true, false, streams.Cancelled, streams.Failed, Over, true},
		{true, false, streams.Expired, streams.Failed, Over, true},
		{true, false, streams.Leased, streams.Failed, NotHeld, true},
		{true, false, streams.Pending, streams.Failed, NotHeld, true},
	}
	for _, test := range tests {
		why, problem := judge(request.Change{Known: test.known, Changed: test.changed, State: test.state}, test.said)
		if why != test.want || problem != test.problem {
			t.Errorf("said %v of %v: got %v %v, want %v %v", test.said, test.state, why, problem, test.want, test.problem)
		}
	}
}

// reports makes a report of messages that were made now.
func reports(states ...streams.State) Report {
	cmd := Report{Caller: Caller{Account: account}, Device: "Phone"}
	for i, state := range states {
		cmd.Items = append(cmd.Items, Item{ID: (streams.FirstIDAt(time.Now()) + streams.MessageID(i)).String(), State: state})
	}
	return cmd
}

// Without an answer the report is stored all the same.
func TestCore_Report_NoDispatcher(t *testing.T) {
	c := newCore(t)
	got, err := c.Report(t.Context(), reports(streams.Delivered, streams.Failed, streams.Delivered))
	if err != nil || got.Updated != 3 || got.Problems != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	msg, err := c.bus.LastForSubject(t.Context(), streams.StatusStream(0), streams.ReportSubject(0, account.ID))
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Decode[event.Reported](msg.Data)
	if err != nil || len(e.Messages) != 3 || e.Name != "Phone" || e.Device != streams.DeviceIDOf(account.ID, "Phone") || msg.Header.Get("Nats-Msg-Id") == "" {
		t.Errorf("stored %+v, %v", e, err)
	}
}

// What a dispatcher says is put in the order of the request.
func TestCore_Report_Problems(t *testing.T) {
	c := newCore(t)
	asked := make(chan request.ChangedBy, 1)
	serve(t, c.bus, request.DispatcherChanged(0), func(_ context.Context, q request.ChangedBy) (request.Changed, error) {
		asked <- q
		return request.Changed{Messages: []request.Change{
			{Known: true, Changed: true, State: streams.Delivered}, {}, {Known: true, State: streams.Pending},
		}}, nil
	})
	cmd := reports(streams.Delivered, streams.Delivered, streams.Delivered, streams.Failed)
	cmd.Items[1].ID = "nonsense"
	got, err := c.Report(t.Context(), cmd)
	want := Reported{Updated: 1, Problems: []Problem{{1, Unknown}, {2, Unknown}, {3, NotHeld}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if q := <-asked; q.Seq != 1 || q.Account != account.ID || q.Device == 0 || len(q.Messages) != 3 || q.Messages[0].String() != cmd.Items[0].ID {
		t.Errorf("asked %+v", q)
	}
}

func TestCore_Report_Full(t *testing.T) {
	c := newCore(t)
	c.status[0] = commit(full)
	if _, err := c.Report(t.Context(), reports(streams.Delivered)); !fault.Is(err, fault.Full) {
		t.Errorf("got %v", err)
	}
}

// serve answers requests until the test ends. It returns once the engine
// delivers them.
func serve[A, Q any](t *testing.T, b *bus.Bus, subject string, f func(context.Context, Q) (A, error)) {
	t.Helper()
	ready := make(chan struct{})
	run(t, func(ctx context.Context) error {
		return b.Serve(ctx, bus.ServeOptions{
			Name: "test", Version: "0.0.0", Ready: func() { close(ready) },
			Endpoints: []bus.Endpoint{{Subject: subject, Handler: bus.Handle(f)}},
		})
	})
	<-ready
}

// standIn is a dispatcher that knows some messages and folds what it is asked about at once.
type standIn struct {
	t      *testing.T
	c      *Core
	known  map[streams.MessageID]streams.State
	folded uint64
	asked  int // previews
}

func newStandIn(t *testing.T, c *Core, ids ...streams.MessageID) *standIn {
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
func saidInStream(t *testing.T, c *Core) (n int) {
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
func TestCore_Report_Repeats(t *testing.T) {
	c := newCore(t)
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
func TestCore_Report_RepeatsOnceAMinute(t *testing.T) {
	c := newCore(t)
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
func TestCore_Report_DeliveredLongAgo(t *testing.T) {
	c := newCore(t)
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
func TestCore_Report_Invented(t *testing.T) {
	c := newCore(t)
	now := time.Now()
	c.now = func() time.Time { return now }
	d := newStandIn(t, c)
	invent := func(times int) {
		for range times {
			cmd := Report{Caller: Caller{Account: account}}
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
	c.repeats.take(account.ID, make([]said, maxIdle-3*100), now) // what was invented before
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
func TestCore_Report_RepeatsUnanswered(t *testing.T) {
	c := newCore(t)
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
