package dispatcher_test

import (
	"testing"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// A dispatcher that still folds says nothing about messages rather than that there are none.
func TestAskedWhileFolding(t *testing.T) {
	h := newHarness(t, 1)
	a := streams.AccountID(1)
	h.stop()
	var newest streams.MessageID
	for range 20_000 {
		newest = h.ids.Message()
		h.publishLater(streams.EnqueueSubject(0, a, normal), event.Enqueued{ID: newest, Phone: "+40700000000", Text: "secret-text-1", Month: "2026-11"})
	}
	h.await()
	h.start()
	if shown := call[request.Shown](h, request.DispatcherShow(0), request.Show{ID: newest}); shown.Message == nil {
		t.Error("show: the message is unknown")
	}
	h.stop()
	h.dir = t.TempDir() // folded anew
	h.start()
	listed := call[request.Listed](h, request.DispatcherList(0), request.List{Account: a, Limit: 1})
	if len(listed.Messages) != 1 || listed.Messages[0].ID != newest {
		t.Errorf("list: got %v, want the newest message %s", listed.Messages, newest)
	}
}
