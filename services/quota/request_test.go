package quota

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// FuzzRequests: whatever another part asks, the answer is of its form or a refusal; what was granted and counted stays
// as it was, but for what a grant of this very account gives back.
func FuzzRequests(f *testing.F) {
	w := newWorld(f, 1)
	w.start("a")
	for !w.granting() {
		time.Sleep(time.Millisecond) // until the leader has found out what is in use
	}
	kept := w.mustReserve(alice, 60, 100)
	for _, seed := range []any{
		request.Reserve{Account: alice, Count: 1, Limit: 100}, request.Reserve{Account: alice, Count: 1 << 62, Limit: 1<<63 - 1},
		request.Reserve{Account: alice, Count: 1000, Limit: -1 << 63}, request.Reserve{Account: alice, Count: -1, Limit: 1, Instance: -1},
		request.Release{Grant: request.Grant{ID: kept.ID, Account: kept.Account + 1, Count: 60}}, request.Release{}, request.UsageOf{Account: alice}, nil, "x",
	} {
		data, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"account":"0123456789abcdef","count":1e400}`))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		bustest.AskRaw[request.Grant](t, w.bus, request.QuotaReserve, data)
		bustest.AskRaw[request.Usage](t, w.bus, request.QuotaUsage, data)
		var given request.Release
		if json.Unmarshal(data, &given) != nil || given.Grant.ID != kept.ID {
			bustest.AskRaw[request.Released](t, w.bus, request.QuotaRelease, data)
		}
		usage, err := bus.Call[request.Usage](t.Context(), w.bus, request.QuotaUsage, request.UsageOf{Account: alice})
		if err != nil || usage.Used < 60 {
			t.Fatalf("%q: got %+v, %v, want 60 or more", data, usage, err)
		}
	})
}
