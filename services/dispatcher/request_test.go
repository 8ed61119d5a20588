package dispatcher_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// FuzzRequests: whatever another part asks, the answer is of its form or a refusal.
func FuzzRequests(f *testing.F) {
	h := newHarness(f, 1)
	a := streams.AccountIDOf("shop")
	ids := h.enqueue(a, normal, 3)
	h.pull(phone(a, "Pixel", 1))
	for _, seed := range []any{
		phone(a, "Pixel", 1), request.Pull{Account: a, Limit: 1000, Lease: 1<<63 - 1, Attempts: 1 << 62, Policy: "none", Wait: -1, Poll: "x"},
		request.Pull{Account: a, Limit: -1, Lease: -1}, request.ChangedBy{Account: a, Seq: 1, Messages: ids}, request.ChangedBy{Seq: 1<<64 - 1},
		request.Show{ID: ids[0]}, request.Show{Account: a + 1, ID: ids[0]}, request.List{Account: a, Limit: 1000, Before: 1<<64 - 1},
		request.List{Account: 1<<64 - 1, Limit: 1}, request.Decide{Account: a, Messages: append(ids, ids...)}, request.Hangup{Poll: "x"}, nil, 5,
	} {
		data, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"messages":[null,"0123456789abcdef"],"states":["delivered","delivered"],"limit":1}`))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var q request.Pull
		if json.Unmarshal(data, &q) == nil && q.Wait > 0 {
			q.Wait = min(q.Wait, time.Millisecond)
			data, _ = json.Marshal(q)
		}
		bustest.AskRaw[request.Pulled](t, h.bus, request.DispatcherPull(0), data)
		bustest.AskRaw[request.Changed](t, h.bus, request.DispatcherChanged(0), data)
		bustest.AskRaw[request.Shown](t, h.bus, request.DispatcherShow(0), data)
		bustest.AskRaw[request.Listed](t, h.bus, request.DispatcherList(0), data)
		bustest.AskRaw[request.Found](t, h.bus, request.DispatcherFind(0), data)
		bustest.AskRaw[request.Browsed](t, h.bus, request.DispatcherBrowse(0), data)
		bustest.AskRaw[request.Decided](t, h.bus, request.DispatcherCancel(0), data)
		bustest.AskRaw[request.Decided](t, h.bus, request.DispatcherRequeue(0), data)
		bustest.AskRaw[struct{}](t, h.bus, request.DispatcherHangup(0), data)
	})
}

// What asks for more than an answer holds is refused.
func TestRequestsTooLarge(t *testing.T) {
	h := newHarness(t, 1)
	a := streams.AccountIDOf("shop")
	call[request.Listed](h, request.DispatcherList(0), request.List{Account: a, Limit: 1000})
	for _, refused := range []func() error{
		func() error {
			return ask[request.Listed](h, request.DispatcherList(0), request.List{Account: a, Limit: 1001})
		},
		func() error { return ask[request.Pulled](h, request.DispatcherPull(0), phone(a, "", 1001)) },
		func() error {
			return ask[request.Browsed](h, request.DispatcherBrowse(0), request.Browse{Account: a, Limit: 101})
		},
		func() error {
			return ask[request.Browsed](h, request.DispatcherBrowse(0), request.Browse{Account: a, Limit: 1, Offset: -1})
		},
		func() error {
			return ask[request.Decided](h, request.DispatcherCancel(0), request.Decide{Account: a, Messages: make([]streams.MessageID, 1001)})
		},
		func() error {
			return ask[request.Decided](h, request.DispatcherRequeue(0), request.Decide{Account: a, Messages: make([]streams.MessageID, 1001)})
		},
	} {
		if err := refused(); !fault.Is(err, fault.Invalid) {
			t.Errorf("got %v, want a refusal", err)
		}
	}
}

func ask[A, Q any](h *harness, subject string, q Q) error {
	_, err := bus.Call[A](h.t.Context(), h.bus, subject, q)
	return err
}
