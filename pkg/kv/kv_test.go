package kv

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newBucket makes an empty bucket on a real engine.
func newBucket(t *testing.T) (Bucket, jetstream.KeyValue) {
	t.Helper()
	b := bustest.New(t)
	bucket, err := b.JS.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "things"})
	if err != nil {
		t.Fatal(err)
	}
	return Bucket{Bus: b, Name: "things"}, bucket
}

func TestBucket(t *testing.T) {
	b, _ := newBucket(t)
	ctx := t.Context()
	if value, revision, err := b.Get(ctx, "a"); value != nil || revision != 0 || err != nil {
		t.Errorf("got %q, %d, %v of what nobody stored", value, revision, err)
	}
	for _, want := range []bool{true, false} {
		if created, err := b.Create(ctx, "a", []byte("1")); created != want || err != nil {
			t.Errorf("create: got %t, %v, want %t", created, err, want)
		}
	}
	for _, test := range []struct {
		revision uint64
		want     bool
	}{{0, false}, {1, true}, {1, false}} {
		if updated, err := b.Update(ctx, "a", []byte("2"), test.revision); updated != test.want || err != nil {
			t.Errorf("update of revision %d: got %t, %v, want %t", test.revision, updated, err, test.want)
		}
	}
	if value, revision, err := b.Get(ctx, "a"); string(value) != "2" || revision != 2 || err != nil {
		t.Errorf("got %q, %d, %v, want 2 of revision 2", value, revision, err)
	}
	if err := errors.Join(b.Put(ctx, "a", []byte("3")), b.Delete(ctx, "a"), b.Delete(ctx, "a"), b.Delete(ctx, "never")); err != nil {
		t.Error(err)
	}
	if value, revision, err := b.Get(ctx, "a"); value != nil || revision != 0 || err != nil {
		t.Errorf("got %q, %d, %v of what was deleted", value, revision, err)
	}
	if created, err := b.Create(ctx, "a", []byte("4")); !created || err != nil {
		t.Errorf("create what was deleted: got %t, %v", created, err)
	}
}

// Changes at the same time follow each other; one that never comes first gives up, and leaves the value as it is.
func TestBucket_Change(t *testing.T) {
	b, _ := newBucket(t)
	times := 0
	appended := func(disturb int) func([]byte) ([]byte, error) {
		return func(before []byte) ([]byte, error) {
			if times++; times <= disturb {
				if err := b.Put(t.Context(), "a", append(slices.Clone(before), 'x')); err != nil {
					t.Error(err)
				}
			}
			return append(slices.Clone(before), 'y'), nil
		}
	}
	if got, err := b.Change(t.Context(), "a", appended(changeTries-1)); string(got) != "xxxxy" || err != nil || times != changeTries {
		t.Errorf("got %q, %v after %d tries", got, err, times)
	}
	times = 0
	if _, err := b.Change(t.Context(), "a", appended(changeTries)); !errors.Is(err, ErrChanging) || times != changeTries {
		t.Errorf("got %v after %d tries, want ErrChanging", err, times)
	}
	odd := errors.New("odd")
	if _, err := b.Change(t.Context(), "a", func([]byte) ([]byte, error) { return nil, odd }); !errors.Is(err, odd) {
		t.Errorf("got %v, want the change's own error", err)
	}
	if value, _, err := b.Get(t.Context(), "a"); string(value) != "xxxxyxxxxx" || err != nil {
		t.Errorf("got %q, %v", value, err)
	}
}

// What cannot be read is left out of a list, and a list that cannot be read is no empty one.
func TestList(t *testing.T) {
	b, bucket := newBucket(t)
	for key, value := range map[string]string{"n.a": "1", "n.b": "nonsense", "n.c": "3", "m.a": "4"} {
		if err := b.Put(t.Context(), key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := bucket.Delete(t.Context(), "n.c"); err != nil {
		t.Fatal(err)
	}
	if got, err := List[int](t.Context(), b, "n.*"); err != nil || !slices.Equal(got, []int{1}) {
		t.Errorf("got %v, %v, want 1 alone", got, err)
	}
	b.Name = "none"
	if got, err := List[int](t.Context(), b, "n.*"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v, %v of no bucket", got, err)
	}
}

// An engine that does not answer is not waited for.
func TestBucket_Late(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b, _ := newBucket(t)
		defer bustest.Mute(t, b.Bus)()
		for what, ask := range map[string]func() error{
			"get":    func() error { _, _, err := b.Get(t.Context(), "a"); return err },
			"put":    func() error { return b.Put(t.Context(), "a", nil) },
			"create": func() error { _, err := b.Create(t.Context(), "a", nil); return err },
			"update": func() error { _, err := b.Update(t.Context(), "a", nil, 0); return err },
			"change": func() error { _, err := b.Change(t.Context(), "a", nil); return err },
			"delete": func() error { return b.Delete(t.Context(), "a") },
			"list":   func() error { _, err := List[int](t.Context(), b, "a"); return err },
		} {
			begun := time.Now()
			if err := ask(); !errors.Is(err, ErrUnavailable) || time.Since(begun) != 2*time.Second {
				t.Errorf("%s: got %v after %s, want ErrUnavailable after 2s", what, err, time.Since(begun))
			}
		}
	})
}

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

// A follower is told of everything that is there, is loaded then, and hears of what changes, until it is stopped.
func TestFollower(t *testing.T) {
	b, bucket := newBucket(t)
	if err := errors.Join(b.Put(t.Context(), "a", []byte("1")), b.Put(t.Context(), "b", []byte("2"))); err != nil {
		t.Fatal(err)
	}
	f, heard := NewFollower(), make(chan string, 10)
	if f.IsLoaded() {
		t.Error("loaded before it was read")
	}
	ended := make(chan error, 1)
	go func() {
		ended <- f.Follow(t.Context(), bucket, func(e jetstream.KeyValueEntry) { heard <- e.Key() + fmt.Sprint(e.Operation()) })
	}()
	<-f.Loaded()
	if len(heard) != 2 || !f.IsLoaded() {
		t.Errorf("got %d entries before it was loaded, want 2", len(heard))
	}
	if err := b.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	got := []string{<-heard, <-heard, <-heard}
	if want := []string{"aKeyValuePutOp", "bKeyValuePutOp", "aKeyValueDeleteOp"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	b.Bus.Conn.Close()
	if err := <-ended; err == nil {
		t.Error("got no error when the engine is gone")
	}
}
