package dispatcher_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// A preview says what the report then does, and changes nothing itself.
func TestPreviewIsWhatTheReportDoes(t *testing.T) {
	h := newHarness(t, 1)
	a := streams.AccountIDOf("acme")
	ids := h.enqueue(a, normal, 4)
	h.folded(a)
	h.pull(phone(a, "one", 3))
	h.report(a, "one", streams.Delivered, ids[0])
	h.report(a, "one", streams.Failed, ids[1])
	asked := append(ids, h.ids.Message())
	stored := func() (n int) { // about messages: the dispatcher may begin to move the horizon at any time
		for _, m := range h.status() {
			if m.Subject != streams.HorizonSubject(0) {
				n++
			}
		}
		return n
	}
	for _, name := range []string{"two", "one", ""} {
		for _, state := range []streams.State{streams.Failed, streams.Sent, streams.Delivered, streams.Delivered} {
			q := request.Preview{Account: a}
			if name != "" {
				q.Device = streams.DeviceIDOf(a, name)
			}
			for _, id := range asked {
				q.Messages = append(q.Messages, request.Report{ID: id, State: state})
			}
			before := stored()
			would := call[request.Changed](h, request.DispatcherPreview(0), q).Messages
			if n := stored(); n != before {
				t.Fatalf("the preview stored %d events", n-before)
			}
			did := h.report(a, name, state, asked...)
			for i := range would {
				if would[i].Changed != did[i].Changed || would[i].Known != did[i].Known || did[i].Known && !did[i].Changed && would[i].State != did[i].State {
					t.Errorf("%v from %q on message %d: would be %+v, was %+v", state, name, i, would[i], did[i])
				}
			}
		}
	}
}

// It stands on all that is stored, whoever stored it, also a moment ago.
func TestPreviewFoldsFirst(t *testing.T) {
	h := newHarness(t, 1)
	a := streams.AccountIDOf("acme")
	for range 50 {
		id := h.enqueue(a, normal, 1)[0]
		said := request.Preview{Account: a, Messages: []request.Report{{ID: id, State: streams.Delivered}}}
		got := call[request.Changed](h, request.DispatcherPreview(0), said).Messages
		if want := (request.Change{Known: true, Changed: true, State: streams.Pending}); !cmp.Equal(want, got[0]) {
			t.Fatalf("just accepted: got %+v", got[0])
		}
		h.publish(streams.ReportSubject(0, a), event.Reported{Messages: []event.Report{{ID: id, State: streams.Delivered}}})
		got = call[request.Changed](h, request.DispatcherPreview(0), said).Messages
		if want := (request.Change{Known: true, State: streams.Delivered}); !cmp.Equal(want, got[0]) {
			t.Fatalf("just reported: got %+v", got[0])
		}
	}
}
