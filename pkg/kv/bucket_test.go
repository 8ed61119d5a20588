package kv

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

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
