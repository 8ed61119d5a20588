package fleet

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
)

// A phone that was removed leaves nothing behind that look-ups would pass for ever, and comes back when it calls.
func TestRemoveDevice_Swept(t *testing.T) {
	c := newFleet(t)
	caller := access.Caller{Account: account}
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.DevicesBucket)
	if err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return fmt.Sprint("phone ", i) }
	for i := range 20 {
		if _, err := c.Contact(t.Context(), account.ID, name(i)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue // it stays
		}
		if err := c.RemoveDevice(t.Context(), caller, streams.DeviceIDOf(account.ID, name(i))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Contact(t.Context(), account.ID, name(1)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		before        time.Time
		removed, left int
	}{{time.Now().Add(-time.Minute), 0, 20}, {time.Now().Add(time.Minute), 18, 2}} {
		n, err := kv.RemoveMarkers(t.Context(), c.bus, streams.DevicesBucket, test.before)
		if err != nil || n != test.removed {
			t.Errorf("removed %d markers, %v, want %d", n, err, test.removed)
		}
		stream, err := c.bus.JS.Stream(t.Context(), "KV_"+streams.DevicesBucket)
		if err != nil {
			t.Fatal(err)
		}
		if got := stream.CachedInfo().State.Msgs; got != uint64(test.left) {
			t.Errorf("%d entries are left, want %d", got, test.left)
		}
	}
	for i, want := range map[int]error{0: nil, 1: nil, 2: jetstream.ErrKeyNotFound} {
		if _, err := bucket.Get(t.Context(), streams.DeviceKey(account.ID, streams.DeviceIDOf(account.ID, name(i)))); !errors.Is(err, want) {
			t.Errorf("phone %d: got %v, want %v", i, err, want)
		}
	}
	// It is known again, also at an ingress that knew it.
	for range 2 {
		if _, err := c.Contact(t.Context(), account.ID, name(2)); err != nil {
			t.Error(err)
		}
	}
}
