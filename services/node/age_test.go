package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

// Streams of earlier versions lose their age, and nothing else of them is changed; an older version that looks at them
// then tells of a difference and leaves them so.
func TestEndAge(t *testing.T) {
	b := bustest.New(t)
	d := deployment(2)
	if err := streams.EndAge(t.Context(), b.JS, d.Shards); err != nil {
		t.Errorf("without streams: %v", err)
	}
	if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ENQUEUE_0", "ENQUEUE_1", "STATUS_0", "STATUS_1"} {
		was := configOf(t, b, name)
		was.MaxBytes *= 2 // an operator's
		aging := was
		aging.MaxAge = 35 * 24 * time.Hour
		if _, err := b.JS.UpdateStream(t.Context(), aging); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := streams.EndAge(t.Context(), b.JS, d.Shards); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(was, configOf(t, b, name)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
	if claims := configOf(t, b, "KV_claims"); claims.MaxAge == 0 {
		t.Error("claims have no age any more")
	}
}
