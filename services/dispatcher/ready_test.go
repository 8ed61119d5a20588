package dispatcher_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/services/dispatcher"
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
	h.dir = t.TempDir() // folded again
	h.start()
	listed := call[request.Listed](h, request.DispatcherList(0), request.List{Account: a, Limit: 1})
	if len(listed.Messages) != 1 || listed.Messages[0].ID != newest {
		t.Errorf("list: got %v, want the newest message %s", listed.Messages, newest)
	}
}

// A dispatcher may serve a part of the shards, and others the rest.
func TestDispatcherServesItsShards(t *testing.T) {
	h := newHarness(t, 4)
	h.stop()
	h.cfg.Shards = []string{"0-1"}
	stopFirst := h.run(t.TempDir(), 0)
	defer stopFirst()
	inSecond := accountIn(h.shards, 2)
	if err := ask[request.Pulled](h, request.DispatcherPull(2), phone(inSecond, "", 1)); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a shard that nobody serves: got %v, want a refusal", err)
	}
	h.cfg.Shards = []string{"2", "3"}
	h.stop = h.run(t.TempDir(), 1)
	for shard := range streams.Shard(4) {
		a := accountIn(h.shards, shard)
		ids := h.enqueue(a, normal, 1)
		if diff := cmp.Diff(ids, h.pull(phone(a, "", 1))); diff != "" {
			t.Errorf("shard %v (-want +got):\n%s", shard, diff)
		}
	}
}

func TestConfig_Shards(t *testing.T) {
	for text, ok := range map[string]bool{"0": true, "0-63": true, "3,5-7": true, "64": false, "-1": false, "3-1": false, "x": false, "1-": false, "": false} {
		cfg := dispatcher.DefaultConfig()
		cfg.Shards = strings.Split(text, ",")
		if err := cfg.Check(); (err == nil) != ok {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func accountIn(all streams.Shards, shard streams.Shard) streams.AccountID {
	for i := 0; ; i++ {
		if a := streams.AccountIDOf(fmt.Sprint("account-", i)); all.Of(a) == shard {
			return a
		}
	}
}
