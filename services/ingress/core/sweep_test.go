package core

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/streams"
)

// What was removed leaves nothing behind that look-ups would pass for ever.
func TestCore_Sweep(t *testing.T) {
	c := newCore(t)
	caller := Caller{Account: account}
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.DevicesBucket)
	if err != nil {
		t.Fatal(err)
	}
	messages := func(name string) uint64 {
		t.Helper()
		stream, err := c.bus.JS.Stream(t.Context(), "KV_"+name)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.Msgs
	}
	key := func(i int) string {
		return streams.DeviceKey(account.ID, streams.DeviceIDOf(account.ID, fmt.Sprint("phone ", i)))
	}
	for i := range 20 {
		if _, err := c.devices.contact(t.Context(), account.ID, fmt.Sprint("phone ", i)); err != nil {
			t.Fatal(err)
		}
		if err := c.PutWebhook(t.Context(), caller, Webhook{ID: fmt.Sprint(i), URL: "https://example.org"}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue // it stays
		}
		if err := c.RemoveDevice(t.Context(), caller, streams.DeviceIDOf(account.ID, fmt.Sprint("phone ", i))); err != nil {
			t.Fatal(err)
		}
		if err := c.RemoveWebhook(t.Context(), caller, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	// What is young stays for who watches and is behind.
	for _, name := range swept {
		if n, err := c.sweepBucket(t.Context(), name, time.Now().Add(-time.Minute)); n != 0 || err != nil || messages(name) < 20 {
			t.Errorf("%s: took %d young markers away, %v", name, n, err)
		}
	}
	// One is taken up again after the markers were listed: it is not taken away with its marker.
	markers, err := oldMarkers(t.Context(), bucket, time.Now().Add(time.Minute))
	if err != nil || len(markers) != 19 {
		t.Fatalf("got %d markers, %v", len(markers), err)
	}
	stream, err := c.bus.JS.Stream(t.Context(), "KV_devices")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.devices.contact(t.Context(), account.ID, "phone 1"); err != nil {
		t.Fatal(err)
	}
	for _, m := range markers {
		if err := takeAway(t.Context(), stream, bucket.Bucket(), m); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range map[int]error{0: nil, 1: nil, 2: jetstream.ErrKeyNotFound} {
		if _, err := bucket.Get(t.Context(), key(i)); !errors.Is(err, want) {
			t.Errorf("phone %d: got %v, want %v", i, err, want)
		}
	}
	for _, name := range swept {
		if _, err := c.sweepBucket(t.Context(), name, time.Now().Add(time.Minute)); err != nil {
			t.Error(err)
		}
	}
	if devices, registry := messages(streams.DevicesBucket), messages(streams.RegistryBucket); devices != 2 || registry != 1 {
		t.Errorf("%d and %d entries are left, want 2 and 1", devices, registry)
	}
	// A phone that was removed, and forgotten, is known again when it calls, also at an ingress that knew it.
	for range 2 {
		if _, err := c.devices.contact(t.Context(), account.ID, "phone 2"); err != nil {
			t.Error(err)
		}
	}
	if hooks, err := c.Webhooks(t.Context(), caller); err != nil || len(hooks) != 1 {
		t.Errorf("got %d webhooks, %v", len(hooks), err)
	}
}
