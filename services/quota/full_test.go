package quota

import (
	"context"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

// A leader that finds a full stream says so, and leads once there is room.
func TestFullStreamTakesNoBarrier(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.publish(alice, 3, "2000-01", "")
		resize := func(bytes int64) {
			stream, err := w.bus.JS.Stream(context.Background(), streams.EnqueueStream(0))
			if err != nil {
				t.Fatal(err)
			}
			cfg := stream.CachedInfo().Config
			if cfg.MaxBytes = bytes; bytes == 0 {
				cfg.MaxBytes = int64(stream.CachedInfo().State.Bytes)
			}
			if _, err := w.bus.JS.UpdateStream(context.Background(), cfg); err != nil {
				t.Fatal(err)
			}
		}
		resize(0)
		w.start("a")
		w.await("a refusal", func() bool {
			_, err := w.reserve(alice, 1, 10)
			return isCode(err, "queue_full")
		})
		resize(1 << 30)
		w.await("a leader", w.granting)
		w.mustUse(alice, 3)
	})
}
