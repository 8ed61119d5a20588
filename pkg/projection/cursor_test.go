package projection_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// What happens to the ORDERS stream, of ten events on .a, while the file is
// closed, and what the file must count afterwards.
func TestCursorHeldToStream(t *testing.T) {
	purge := func(t *testing.T, s jetstream.Stream, below uint64) {
		if err := s.Purge(t.Context(), jetstream.WithPurgeSequence(below)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		change func(*testing.T, *bus.Bus, jetstream.Stream)
		want   map[string]int
	}{
		{
			name:   "nothing",
			change: func(*testing.T, *bus.Bus, jetstream.Stream) {},
			want:   map[string]int{"ORDERS.a": 10},
		},
		{
			name:   "more events",
			change: func(t *testing.T, b *bus.Bus, _ jetstream.Stream) { publish(t, b, "ORDERS.b", "more") },
			want:   map[string]int{"ORDERS.a": 10, "ORDERS.b": 1},
		},
		{
			name: "purged below the cursor",
			change: func(t *testing.T, b *bus.Bus, s jetstream.Stream) {
				publish(t, b, "ORDERS.b", "more")
				purge(t, s, 10)
			},
			want: map[string]int{"ORDERS.a": 10, "ORDERS.b": 1},
		},
		{
			name: "aged out up to the cursor",
			change: func(t *testing.T, b *bus.Bus, s jetstream.Stream) {
				publish(t, b, "ORDERS.b", "more")
				purge(t, s, 11)
			},
			want: map[string]int{"ORDERS.a": 10, "ORDERS.b": 1},
		},
		{
			name:   "all aged out",
			change: func(t *testing.T, _ *bus.Bus, s jetstream.Stream) { purge(t, s, 11) },
			want:   map[string]int{"ORDERS.a": 10},
		},
		{
			name: "aged out beyond the cursor",
			change: func(t *testing.T, b *bus.Bus, s jetstream.Stream) {
				publish(t, b, "ORDERS.b", "lost to us")
				publish(t, b, "ORDERS.b", "more")
				purge(t, s, 12)
			},
			want: map[string]int{"ORDERS.b": 1},
		},
		{
			name: "the event at the cursor deleted",
			change: func(t *testing.T, _ *bus.Bus, s jetstream.Stream) {
				if err := s.DeleteMsg(t.Context(), 10); err != nil {
					t.Fatal(err)
				}
			},
			want: map[string]int{"ORDERS.a": 9},
		},
		{
			name: "recreated, shorter",
			change: func(t *testing.T, b *bus.Bus, _ jetstream.Stream) {
				remake(t, b, orders)
				publish(t, b, "ORDERS.c", "other")
			},
			want: map[string]int{"ORDERS.c": 1},
		},
		{
			name: "recreated, longer",
			change: func(t *testing.T, b *bus.Bus, _ jetstream.Stream) {
				remake(t, b, orders)
				for range 20 {
					publish(t, b, "ORDERS.c", "other")
				}
			},
			want: map[string]int{"ORDERS.c": 20},
		},
		{
			name: "recreated, as if all had aged out",
			change: func(t *testing.T, b *bus.Bus, _ jetstream.Stream) {
				must(t, b.JS.DeleteStream(t.Context(), orders))
				_, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{
					Name: orders, Subjects: []string{"ORDERS.>"}, FirstSeq: 11,
				})
				must(t, err)
				publish(t, b, "ORDERS.c", "other")
			},
			want: map[string]int{"ORDERS.c": 1},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := bustest.New(t)
			makeStreams(t, b)
			for range 10 {
				publish(t, b, "ORDERS.a", "first")
			}
			path := filepath.Join(t.TempDir(), "tally.db")
			f := start(t, path, b, tally{}, projection.Options{})
			f.await(orders, 10)
			f.stop()

			s, err := b.JS.Stream(t.Context(), orders)
			if err != nil {
				t.Fatal(err)
			}
			test.change(t, b, s)
			f = start(t, path, b, tally{}, projection.Options{})
			ready(t, f)
			if diff := cmp.Diff(test.want, counts(t, f.File)); diff != "" {
				t.Errorf("counts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFileOrCopyPutBack(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	path := filepath.Join(t.TempDir(), "tally.db")
	publishMany(t, b, 30)
	f := start(t, path, b, tally{}, projection.Options{})
	f.catchUp(b)
	f.stop()
	older, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	publishMany(t, b, 30)
	want := foldAnew(t, b, tally{})

	for name, change := range map[string]func() error{
		"same file":  func() error { return nil },
		"older file": func() error { return os.WriteFile(path, older, 0o600) },
		"no file":    func() error { return os.Remove(path) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		f := start(t, path, b, tally{}, projection.Options{})
		f.catchUp(b)
		if got := dump(t, f.File); got != want {
			t.Errorf("%s: dump differs from a fold in one go", name)
		}
		f.stop()
	}
}

// A stream that goes while it is followed takes the consumer along; the one
// that comes under its name is another.
func TestStreamMadeAnewWhileFollowed(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	for range 3 {
		publish(t, b, "ORDERS.a", "1")
	}
	publish(t, b, "PAYMENTS.a", "1")
	replaced := make(chan struct{}, 2)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{
		Replaced: func(*bolt.Tx) error { replaced <- struct{}{}; return nil },
	})
	<-replaced
	f.catchUp(b)

	remake(t, b, orders)
	publish(t, b, "ORDERS.b", "2")
	<-replaced
	if got := f.Cursor(orders); got > 1 {
		t.Errorf("cursor is %d, as if the old stream's events were there", got)
	}
	ready(t, f)
	if diff := cmp.Diff(map[string]int{"ORDERS.b": 1, "PAYMENTS.a": 1}, counts(t, f.File)); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

func remake(t *testing.T, b *bus.Bus, stream string) {
	t.Helper()
	if err := b.JS.DeleteStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	makeStream(t, b, stream)
}
