package dispatcher_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/streams"
)

// damage makes messages of shard 0 unreadable, from the first on.
func (h *harness) damage(messages int) {
	h.t.Helper()
	stream, err := h.bus.JS.Stream(h.t.Context(), streams.EnqueueStream(0))
	if err != nil {
		h.t.Fatal(err)
	}
	for seq := range uint64(messages) {
		if err := stream.DeleteMsg(h.t.Context(), seq+2); err != nil {
			h.t.Fatal(err)
		}
	}
}

// However many messages are damaged at the head of what is offered again, those behind them go out.
func TestDamagedMessagesHideNothing(t *testing.T) {
	for _, damaged := range []int{20, 1100} {
		for _, policy := range []streams.LapsePolicy{streams.Retry, streams.Hold} {
			inTime(t, func(h *harness) {
				h.enqueue(other, normal, 1) // so that nothing has aged out
				ids := h.enqueue(shop, normal, damaged+7)
				q := phone(shop, "Pixel", 1000)
				q.Policy = policy
				synctest.Wait()
				for range 1 + len(ids)/1000 {
					h.pull(q)
				}
				h.damage(damaged)
				pass(streams.DefaultLease + time.Second)
				var got []streams.MessageID
				q.Limit = 3
				q.Wait = 5 * time.Second
				got = h.pull(q) // it looks again by itself, if it has not got past them all
				q.Wait = 0
				for range 4 {
					got = append(got, h.pull(q)...)
				}
				if len(got) > 7 {
					got = got[:7]
				}
				if diff := cmp.Diff(ids[damaged:], got); diff != "" {
					h.t.Errorf("%d damaged, %s (-want +got):\n%s", damaged, policy, diff)
				}
			})
		}
	}
}
