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

// serve answers requests until the test ends.
func serve[A, Q any](t *testing.T, b *bus.Bus, subject string, f func(context.Context, Q) (A, error)) {
	t.Helper()
	const ping = "core.test.ping"
	run(t, func(ctx context.Context) error {
		return b.Serve(ctx, bus.ServeOptions{Name: "test", Version: "0.0.0", Endpoints: []bus.Endpoint{
			{Subject: subject, Handler: bus.Handle(f)},
			{Subject: ping, Handler: bus.Handle(func(context.Context, struct{}) (struct{}, error) { return struct{}{}, nil })},
		}})
	})
	for {
		if _, err := bus.Call[struct{}](t.Context(), b, ping, struct{}{}); err == nil {
			return
		}
	}
}
