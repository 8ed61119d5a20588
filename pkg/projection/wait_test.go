package projection_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// Whoever waits for the event he published then reads it, in the file and in
// the memory that Committed keeps.
func TestReadYourWrites(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	var mu sync.Mutex
	mirror := map[string]bool{}
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{
		Committed: func(events []projection.Event) {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				mirror[string(e.Data)] = true
			}
		},
	})
	ctx, cancel := patient(t)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for writer := range 16 {
		g.Go(func() error {
			for i := range 50 {
				stream, data := streams[i%2], fmt.Sprintf("%d/%d", writer, i)
				ack, err := b.JS.Publish(ctx, stream+".a", []byte(data))
				if err != nil {
					return err
				}
				if err := f.Wait(ctx, stream, ack.Sequence); err != nil {
					return err
				}
				mu.Lock()
				mirrored := mirror[data]
				mu.Unlock()
				if !mirrored {
					return fmt.Errorf("%s is not in the mirror", data)
				}
				if got := f.Cursor(stream); got < ack.Sequence {
					return fmt.Errorf("cursor is %d, want at least %d", got, ack.Sequence)
				}
				got, err := eventData(f, stream, ack.Sequence)
				if err == nil && got != data {
					err = fmt.Errorf("got %q, want %q", got, data)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestWaitRefused(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
	f.await(orders, publish(t, b, "ORDERS.a", "1"))

	if err := f.Wait(t.Context(), "OTHER", 1); err == nil {
		t.Error("waited for a stream that is not read")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Wait(gone, orders, 1); err != nil {
		t.Errorf("wait for what is applied: %v", err)
	}
	if err := f.Wait(gone, orders, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("wait that was given up: %v", err)
	}
	waits := make(chan error)
	go func() { waits <- f.Wait(context.Background(), orders, 2) }()
	f.cancel()
	if err := <-waits; err == nil {
		t.Error("waited although nothing is folded any more")
	}
	if err := f.Wait(t.Context(), orders, 1); err != nil {
		t.Errorf("wait for what is applied, after Run: %v", err)
	}
	if err := f.Run(t.Context()); err == nil {
		t.Error("run twice")
	}
}

// Waiters give up and are served in any order.
func TestManyWait(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
	ready(t, f)
	const n = 200
	ctx, cancel := patient(t)
	defer cancel()
	soon, giveUp := context.WithCancel(ctx)
	var served, gaveUp sync.WaitGroup
	for i := range n {
		seq := uint64(1 + i*7%n)
		served.Go(func() {
			if err := f.Wait(ctx, orders, seq); err != nil {
				t.Error(err)
			}
		})
		gaveUp.Go(func() {
			if err := f.Wait(soon, orders, n+seq); !errors.Is(err, context.Canceled) {
				t.Errorf("wait for %d: %v", n+seq, err)
			}
		})
	}
	giveUp()
	gaveUp.Wait()
	publishMany(t, b, n)
	served.Wait()
}

// Events that the sources leave out do not hold up a wait for one behind them.
func TestWaitPastOtherSubjects(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{subjects: []string{"a", "b"}}, projection.Options{})
	for range 10 {
		publish(t, b, "ORDERS.z", "not read")
	}
	seq := publish(t, b, "ORDERS.b", "1")
	f.await(orders, seq)
	f.await(orders, seq-5)
	if got := counts(t, f.File); len(got) != 1 || got["ORDERS.b"] != 1 {
		t.Errorf("got %v", got)
	}
}

// An event that cannot be decoded is set aside, and does not hold up the others.
func TestUnreadableIsSetAside(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	core, lines := observer.New(zap.ErrorLevel)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{Log: zap.New(core)})
	publish(t, b, "ORDERS.a", "1")
	publish(t, b, "ORDERS.a", "unreadable")
	f.await(orders, publish(t, b, "ORDERS.a", "3"))
	if got := counts(t, f.File); got["ORDERS.a"] != 2 {
		t.Errorf("got %v, want the two others counted", got)
	}
	if lines.Len() != 1 || lines.All()[0].ContextMap()["seq"] != uint64(2) {
		t.Errorf("got log %v, want that event 2 is set aside", lines.All())
	}
}

// Any other failure of a fold stops it, and its event stands nowhere as
// applied.
func TestFailedApply(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	path := filepath.Join(t.TempDir(), "tally.db")
	publish(t, b, "ORDERS.a", "1")
	publish(t, b, "ORDERS.a", "garbled")
	publish(t, b, "ORDERS.a", "3")
	for range 2 {
		f := start(t, path, b, tally{}, projection.Options{})
		waits := make(chan error)
		go func() { waits <- f.Wait(context.Background(), orders, 3) }()
		err := f.fail()
		if err == nil || !strings.Contains(err.Error(), "apply ORDERS 2: not a tally event") {
			t.Errorf("run ended: %v", err)
		}
		if err := <-waits; err == nil || !strings.Contains(err.Error(), "apply ORDERS 2") {
			t.Errorf("wait ended: %v", err)
		}
		if got := f.Cursor(orders); got > 1 {
			t.Errorf("cursor is %d", got)
		}
	}
}

func TestLag(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{subjects: []string{"a"}}, projection.Options{
		Committed: func(e []projection.Event) {
			if string(e[0].Data) == "hold" {
				held <- struct{}{}
				<-hold
			}
		},
	})
	ready(t, f)
	publish(t, b, "ORDERS.a", "hold")
	<-held
	if got := f.Cursor(orders); got != 0 {
		t.Errorf("cursor is %d while Committed is still told of 1", got)
	}
	for range 5 {
		publish(t, b, "ORDERS.a", "1")
		publish(t, b, "ORDERS.z", "not read")
	}
	lag, err := f.Lag(t.Context())
	must(t, err)
	// The engine counts what was just published a moment later.
	for range 1000 {
		if lag[orders] == 6 {
			break
		}
		lag, err = f.Lag(t.Context())
		must(t, err)
	}
	// The one in Committed is not yet told of.
	if lag[orders] != 6 || lag[payments] != 0 {
		t.Errorf("got %v, want 6 and 0", lag)
	}
	close(hold)
	f.await(orders, 10)
	lag, err = f.Lag(t.Context())
	must(t, err)
	if lag[orders] > 6 {
		t.Errorf("got %v after catching up", lag)
	}
}

// eventData is what a tally keeps of an event.
func eventData(f *running, stream string, seq uint64) (data string, err error) {
	err = f.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket([]byte("events")); b != nil {
			data = string(b.Get(eventKey(stream, seq)))
		}
		return nil
	})
	return data, err
}
