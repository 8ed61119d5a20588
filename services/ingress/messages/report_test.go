package messages

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

func TestRead(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
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
			all, reported := readItems(test.items, map[streams.MessageID]bool{id(time.Hour): true})
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
		known, changed  bool
		state, reported streams.State
		want            Why
		problem         bool
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
		why, problem := judge(request.Change{Known: test.known, Changed: test.changed, State: test.state}, test.reported)
		if why != test.want || problem != test.problem {
			t.Errorf("said %v of %v: got %v %v, want %v %v", test.reported, test.state, why, problem, test.want, test.problem)
		}
	}
}

// reports makes a report of messages that were made now.
func reports(states ...streams.State) Report {
	cmd := Report{Caller: access.Caller{Account: account}, Device: "Phone"}
	for i, state := range states {
		cmd.Items = append(cmd.Items, Item{ID: (streams.FirstIDAt(time.Now()) + streams.MessageID(i)).String(), State: state})
	}
	return cmd
}

// Without an answer the report is stored all the same.
func TestReport_NoDispatcher(t *testing.T) {
	c := newMessages(t)
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
func TestReport_Problems(t *testing.T) {
	c := newMessages(t)
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

func TestReport_Full(t *testing.T) {
	c := newMessages(t)
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
	bustest.Run(t, func(ctx context.Context) error {
		return b.Serve(ctx, bus.ServeOptions{
			Name: "test", Version: "0.0.0", Ready: func() { close(ready) },
			Endpoints: []bus.Endpoint{{Subject: subject, Handler: bus.Handle(f)}},
		})
	})
	<-ready
}

// A report is stored also where the phone's name has no place. It still tells which phone it is.
func TestReport_TooManyDevices(t *testing.T) {
	c := newMessages(t)
	for i := range streams.MaxDevices {
		data := fmt.Appendf(nil, `{"last_seen":%q}`, time.Now().Format(time.RFC3339))
		if _, err := c.bus.JS.PublishAsync("$KV.devices."+streams.DeviceKey(account.ID, streams.DeviceID(i+1)), data); err != nil {
			t.Fatal(err)
		}
	}
	<-c.bus.JS.PublishAsyncComplete()
	if _, err := c.Pull(t.Context(), Pull{Caller: access.Caller{Account: account}, Device: "Phone", Limit: 1}); !fault.Is(err, fault.Conflict) || fault.As(err).Code != "too_many_devices" {
		t.Errorf("a pull: got %v", err)
	}
	if got, err := c.Report(t.Context(), reports(streams.Delivered)); err != nil || got.Updated != 1 {
		t.Fatalf("a report: got %+v, %v", got, err)
	}
	msg, err := c.bus.LastForSubject(t.Context(), streams.StatusStream(0), streams.ReportSubject(0, account.ID))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := event.Decode[event.Reported](msg.Data); err != nil || len(e.Messages) != 1 || e.Name != "" || e.Device != streams.DeviceIDOf(account.ID, "Phone") {
		t.Errorf("stored %+v, %v", e, err)
	}
}

func TestErrorText(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", 1000), strings.Repeat("é", 500), "a\x00\n" + strings.Repeat("\xff", 300)} {
		got := errorText(text)
		if len(got) > 256 || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%q is kept as %q", text, got)
		}
	}
	if got := errorText(strings.Repeat("x", 257)); len(got) != 256 {
		t.Errorf("got %d bytes, want 256", len(got))
	}
}

// A report whose id somebody has already is stored under another.
func TestReport_IDTaken(t *testing.T) {
	c := newMessages(t)
	engine, tries := c.status[0], 0
	c.status[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
		if tries++; tries == 1 {
			return bus.Stored{}, bus.ErrDuplicate
		}
		return engine.Commit(ctx, msgs)
	})
	if _, err := c.Report(t.Context(), reports(streams.Sent)); err != nil || tries != 2 {
		t.Errorf("got %v after %d tries, want it stored at the second", err, tries)
	}
	if n := saidInStream(t, c); n != 1 {
		t.Errorf("%d items are stored, want 1", n)
	}
}

// An answer about other messages than were asked about says nothing.
func TestReport_ShortAnswer(t *testing.T) {
	c := newMessages(t)
	short := func(context.Context, request.ChangedBy) (request.Changed, error) {
		return request.Changed{Messages: []request.Change{{}}}, nil
	}
	serve(t, c.bus, request.DispatcherChanged(0), short)
	serve(t, c.bus, request.DispatcherPreview(0), func(ctx context.Context, _ request.Preview) (request.Changed, error) {
		return short(ctx, request.ChangedBy{})
	})
	for range 2 {
		if got, err := c.Report(t.Context(), reports(streams.Sent, streams.Sent)); err != nil || got.Updated != 2 {
			t.Errorf("got %+v, %v, want both taken for stored", got, err)
		}
	}
}
