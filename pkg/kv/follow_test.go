package kv

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// A bucket that does not open yet is opened once it does.
func TestOpen(t *testing.T) {
	b := bustest.New(t)
	tried := make(chan struct{}, 16)
	log := zap.NewExample(zap.Hooks(func(zapcore.Entry) error { tried <- struct{}{}; return nil }))
	go func() {
		<-tried
		_, _ = b.JS.CreateKeyValue(context.Background(), jetstream.KeyValueConfig{Bucket: "late"})
	}()
	if bucket, err := Open(t.Context(), b, "late", log); err != nil || bucket.Bucket() != "late" {
		t.Errorf("got %v, %v", bucket, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(gone, b, "never", zap.NewNop()); !errors.Is(err, context.Canceled) {
		t.Errorf("without a caller: got %v", err)
	}
	b.Conn.Close()
	if _, err := Open(t.Context(), b, "never", zap.NewNop()); err == nil {
		t.Error("without a connection: got no error")
	}
}

// A watch that the engine ends begins again, with all that is there.
func TestFollow(t *testing.T) {
	b := bustest.New(t)
	bucket, err := b.JS.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.PutString(t.Context(), "key", "1"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var watchers []jetstream.KeyWatcher
	seen := make(chan string, 16)
	done := make(chan error, 1)
	go func() {
		done <- Follow(ctx, b, "b", zap.NewNop(), func() (jetstream.KeyWatcher, error) {
			w, err := bucket.WatchAll(ctx)
			watchers = append(watchers, w)
			return w, err
		}, func(entry jetstream.KeyValueEntry) {
			if entry == nil {
				if seen <- "all"; len(watchers) == 1 {
					_ = watchers[0].Stop()
				}
				return
			}
			seen <- string(entry.Value())
		})
	}()
	for i, want := range []string{"1", "all", "1", "all"} {
		select {
		case got := <-seen:
			if got != want {
				t.Errorf("%d: got %q, want %q", i, got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%d: nothing came, want %q", i, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("at the end: %v", err)
	}
	b.Conn.Close()
	err = Follow(t.Context(), b, "b", zap.NewNop(), func() (jetstream.KeyWatcher, error) { return bucket.WatchAll(t.Context()) }, func(jetstream.KeyValueEntry) {})
	if err == nil {
		t.Error("without a connection: got no error")
	}
}
