package kv

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// A watch ends whenever its context does, also while it begins, and leaves no goroutine behind that waits for a reader.
func TestEndWatch(t *testing.T) {
	b := bustest.New(t)
	bucket, err := b.JS.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 600 { // more than the client keeps unread
		if _, err := bucket.Put(t.Context(), fmt.Sprint("key", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	began := 0
	for range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(3000))*time.Microsecond)
		if watcher, err := bucket.WatchAll(ctx); err == nil {
			began++
			EndWatch(watcher)
		}
		cancel()
	}
	watcher, err := bucket.WatchAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	EndWatch(watcher)
	t.Logf("%d watches had begun when their contexts ended", began)
}

// silent is a watch of which the client never says that it has ended, as of one whose consumer was being made again.
type silent struct {
	jetstream.KeyWatcher
	updates chan jetstream.KeyValueEntry
}

func (s silent) Stop() error                             { return nil }
func (s silent) Updates() <-chan jetstream.KeyValueEntry { return s.updates }

func TestEndWatch_NeverSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := silent{updates: make(chan jetstream.KeyValueEntry, 2)}
		w.updates <- nil
		w.updates <- nil
		begun := time.Now()
		EndWatch(w)
		if took := time.Since(begun); len(w.updates) > 0 || took != time.Second {
			t.Errorf("ended after %v with %d updates unread, want after a second with none", took, len(w.updates))
		}
	})
}
