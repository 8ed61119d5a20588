package kv

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// What was removed leaves nothing behind that look-ups would pass for ever.
func TestRemoveMarkers(t *testing.T) {
	b, bucket := newBucket(t)
	ctx := t.Context()
	stream, err := b.Bus.JS.Stream(ctx, "KV_things")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		key := fmt.Sprint("thing-", i)
		if err := b.Put(ctx, key, []byte("1")); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue // it stays
		}
		if err := b.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	// What is young stays for those that watch and are behind.
	if n, err := RemoveMarkers(ctx, b.Bus, b.Name, time.Now().Add(-time.Minute)); n != 0 || err != nil {
		t.Errorf("removed %d young markers, %v", n, err)
	}
	// One is stored again after the markers were listed: it is not removed with its marker.
	markers, err := oldMarkers(ctx, bucket, time.Now().Add(time.Minute))
	if err != nil || len(markers) != 19 {
		t.Fatalf("got %d markers, %v", len(markers), err)
	}
	if err := b.Put(ctx, "thing-1", []byte("2")); err != nil {
		t.Fatal(err)
	}
	for _, m := range markers {
		if err := removeMarker(ctx, stream, b.Name, m); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range map[int]error{0: nil, 1: nil, 2: jetstream.ErrKeyNotFound} {
		if _, err := bucket.Get(ctx, fmt.Sprint("thing-", i)); !errors.Is(err, want) {
			t.Errorf("thing %d: got %v, want %v", i, err, want)
		}
	}
	if _, err := RemoveMarkers(ctx, b.Bus, b.Name, time.Now().Add(time.Minute)); err != nil {
		t.Error(err)
	}
	info, err := stream.Info(ctx)
	if err != nil || info.State.Msgs != 2 {
		t.Errorf("%d entries are left, %v, want 2", info.State.Msgs, err)
	}
}
