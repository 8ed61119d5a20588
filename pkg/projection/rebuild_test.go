package projection_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// writing publishes to both streams until the returned function is called.
func writing(t *testing.T, b *bus.Bus) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	for _, stream := range streams {
		done.Go(func() {
			for ctx.Err() == nil {
				if _, err := b.JS.Publish(t.Context(), stream+".a", []byte("live")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return func() { cancel(); done.Wait() }
}

func TestRebuildWhileEventsFlow(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	publishMany(t, b, 3000)
	path := filepath.Join(t.TempDir(), "tally.db")
	var mu sync.Mutex
	mirror, replaced := 0, 0
	f := start(t, path, b, tally{}, projection.Options{
		Committed: func(e []projection.Event) {
			mu.Lock()
			defer mu.Unlock()
			mirror += len(e)
		},
		Replaced: func(tx *bolt.Tx) error {
			mu.Lock()
			defer mu.Unlock()
			replaced++
			mirror = 0
			if b := tx.Bucket([]byte("events")); b != nil {
				mirror = b.Stats().KeyN
			}
			return nil
		},
	})
	f.catchUp(b)
	stop := writing(t, b)
	reading, stopReading := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	readers.Go(func() {
		for before := 0; reading.Err() == nil; {
			now := counts(t, f.File)["ORDERS.a"]
			if now < before {
				t.Errorf("a reader saw %d events and then %d", before, now)
			}
			before = now
		}
	})
	const rebuilds = 5
	for range rebuilds {
		ctx, cancel := patient(t)
		if err := f.Rebuild(ctx); err != nil {
			t.Fatal(err)
		}
		if difference, err := f.Verify(ctx); difference != "" || err != nil {
			t.Errorf("verify: %q, %v", difference, err)
		}
		cancel()
	}
	stop()
	stopReading()
	readers.Wait()
	f.catchUp(b)
	if got, want := dump(t, f.File), foldAnew(t, b, tally{}); got != want {
		t.Error("dump differs from a fold in one go")
	}
	mu.Lock()
	total := int(lastSeq(t, b, orders) + lastSeq(t, b, payments))
	if mirror != total || replaced != 1+rebuilds {
		t.Errorf("mirror of %d after %d replacements, want %d after %d", mirror, replaced, total, 1+rebuilds)
	}
	mu.Unlock()
	f.stop()
	f = start(t, path, b, tally{}, projection.Options{})
	if got, want := f.Cursor(orders), lastSeq(t, b, orders); got != want {
		t.Errorf("opened again at %d, want %d", got, want)
	}
	if diff := cmp.Diff([]string{"tally.db", "tally.db.open"}, namesBeside(t, path)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// A rebuild that fails leaves the live file as it was.
func TestRebuildFails(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	publishMany(t, b, 10)
	path := filepath.Join(t.TempDir(), "tally.db")
	opened := false
	f := start(t, path, b, tally{}, projection.Options{Replaced: func(*bolt.Tx) error {
		if opened {
			return context.DeadlineExceeded
		}
		opened = true
		return nil
	}})
	f.catchUp(b)
	if err := f.Rebuild(t.Context()); err == nil {
		t.Error("rebuilt although the mirror could not be loaded")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Rebuild(gone); err == nil {
		t.Error("rebuilt although nobody waits for it")
	}
	f.await(orders, publish(t, b, "ORDERS.a", "goes on"))
	if got, want := dump(t, f.File), foldAnew(t, b, tally{}); got != want {
		t.Error("dump differs from a fold in one go")
	}
	f.cancel()
	if err := f.Wait(context.Background(), orders, 1<<60); err == nil {
		t.Error("waited for ever")
	}
	if err := f.Rebuild(t.Context()); err == nil {
		t.Error("rebuilt although nothing is folded any more")
	}
	if diff := cmp.Diff([]string{"tally.db", "tally.db.open"}, namesBeside(t, path)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// A fold that ages differently from its streams is rebuilt from what is left.
func TestRebuildAfterAllAgedOut(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	publishMany(t, b, 10)
	path := filepath.Join(t.TempDir(), "tally.db")
	f := start(t, path, b, tally{}, projection.Options{})
	f.catchUp(b)
	for _, name := range streams {
		s, err := b.JS.Stream(t.Context(), name)
		must(t, err)
		must(t, s.Purge(t.Context()))
	}
	must(t, f.Rebuild(t.Context()))
	if got := dump(t, f.File); got != "" {
		t.Errorf("got %q of empty streams", got)
	}
	f.stop()
	f = start(t, path, b, tally{}, projection.Options{})
	if got := f.Cursor(orders); got != 10 {
		t.Errorf("cursor is %d, want 10", got)
	}
	f.await(orders, publish(t, b, "ORDERS.a", "goes on"))
}

// Against streams that were recreated there is nothing to verify.
func TestVerifyOtherStream(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	publishMany(t, b, 10)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
	f.catchUp(b)
	f.cancel()
	if err := f.Wait(context.Background(), orders, 1<<60); err == nil {
		t.Error("waited for ever")
	}
	remake(t, b, orders)
	publish(t, b, "ORDERS.a", "other")
	if difference, err := f.Verify(t.Context()); err == nil {
		t.Errorf("verified against another stream: %q", difference)
	}
}

// Verify folds no further than the live file, even where the event at its
// cursor is no longer there to stop at.
func TestVerifyStopsAtCursor(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	for range 10 {
		publish(t, b, "ORDERS.a", "1")
	}
	path := filepath.Join(t.TempDir(), "tally.db")
	f := start(t, path, b, tally{}, projection.Options{})
	f.catchUp(b)
	f.stop()
	// As if the tenth had never had an effect.
	db, err := bolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error {
		return errors.Join(
			tx.Bucket([]byte("events")).Delete(eventKey(orders, 10)),
			tx.Bucket([]byte("counts")).Put([]byte("ORDERS.a"), []byte("\x00\x00\x00\x00\x00\x00\x00\x09")),
		)
	}))
	must(t, db.Close())
	must(t, os.Remove(path+".sum")) // else it is rebuilt
	s, err := b.JS.Stream(t.Context(), orders)
	must(t, err)
	must(t, s.DeleteMsg(t.Context(), 10))
	publish(t, b, "ORDERS.a", "beyond")

	closed, err := projection.Open(path, b, tally{}, projection.Options{})
	must(t, err)
	defer closed.Close()
	if got, err := closed.Verify(t.Context()); got != "" || err != nil {
		t.Errorf("verify: %q, %v", got, err)
	}
}

func TestVerifyFindsDifference(t *testing.T) {
	tests := []struct {
		name  string
		plant func(counts *bolt.Bucket) error
		want  string
	}{
		{"equal", func(*bolt.Bucket) error { return nil }, ""},
		{
			"value", func(b *bolt.Bucket) error {
				return b.Put([]byte("ORDERS.a"), []byte("\x00\x00\x00\x00\x00\x00\x00\x07"))
			},
			`the live file has: counts "ORDERS.a" 7; the rebuilt one: counts "ORDERS.a" 4`,
		},
		{
			"missing", func(b *bolt.Bucket) error { return b.Delete([]byte("PAYMENTS.c")) },
			`only the rebuilt file has: counts "PAYMENTS.c" 3`,
		},
		{
			"surplus", func(b *bolt.Bucket) error { return b.Put([]byte("P"), []byte("\x00\x00\x00\x00\x00\x00\x00\x01")) },
			`only the live file has: counts "P" 1`,
		},
		{
			"bucket", func(b *bolt.Bucket) error {
				inner, err := b.CreateBucket([]byte("inner"))
				if err != nil {
					return err
				}
				return inner.Put([]byte("k"), []byte("\x00\x00\x00\x00\x00\x00\x00\x01"))
			},
			`only the live file has: counts/inner "k" 1`,
		},
		{
			"sequence", func(b *bolt.Bucket) error { return b.SetSequence(5) },
			`only the live file has: counts #5`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := bustest.New(t)
			makeStreams(t, b)
			publishMany(t, b, 10)
			path := filepath.Join(t.TempDir(), "tally.db")
			f := start(t, path, b, tally{}, projection.Options{})
			f.catchUp(b)
			f.stop()
			db, err := bolt.Open(path, 0o600, nil)
			must(t, err)
			must(t, db.Update(func(tx *bolt.Tx) error { return test.plant(tx.Bucket([]byte("counts"))) }))
			must(t, db.Close())
			must(t, os.Remove(path+".sum")) // else it is rebuilt

			f = start(t, path, b, tally{}, projection.Options{Render: readable})
			ctx, cancel := patient(t)
			defer cancel()
			got, err := f.Verify(ctx)
			must(t, err)
			if got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			must(t, f.Ready(ctx)) // it runs
			must(t, f.Rebuild(ctx))
			if got, err := f.Verify(ctx); got != "" || err != nil {
				t.Errorf("after a rebuild: %q, %v", got, err)
			}
		})
	}
}

// A View that takes long neither holds up the fold, though the file grows
// much, nor a rebuild, and sees what it saw.
func TestLongView(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
	f.await(orders, publish(t, b, "ORDERS.a", "first"))
	viewing, end, saw := make(chan struct{}), make(chan struct{}), make(chan int)
	go func() {
		_ = f.View(func(tx *bolt.Tx) error {
			close(viewing)
			<-end
			saw <- tx.Bucket([]byte("events")).Stats().KeyN
			return nil
		})
	}()
	<-viewing
	for range 20 {
		publish(t, b, "ORDERS.b", strings.Repeat("x", 256<<10))
	}
	f.catchUp(b)
	ctx, cancel := patient(t)
	defer cancel()
	must(t, f.Rebuild(ctx))
	if got, err := f.Verify(ctx); got != "" || err != nil {
		t.Errorf("verify: %q, %v", got, err)
	}
	close(end)
	if got := <-saw; got != 1 {
		t.Errorf("the view saw %d events at its end, want 1", got)
	}
}

func readable(bucket, key, value []byte) (string, string) {
	k, _ := json.Marshal(string(key))
	if string(bucket) == "events" {
		return string(k), string(value)
	}
	n, _ := json.Marshal(int(value[7]))
	return string(k), string(n)
}
