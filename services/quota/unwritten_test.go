package quota

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// Whichever part of an event's effect cannot be written, the event is not taken for counted.
func TestCount_Unwritten(t *testing.T) {
	counted := func(month string) projection.Event {
		return projection.Event{
			Subject: streams.EnqueueSubject(0, alice, streams.Lane{}), Kind: string(event.KindEnqueued),
			Time: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), Data: []byte(`{"id":"0123456789abcdef","month":"` + month + `"}`),
		}
	}
	makeAll := func(tx *bolt.Tx, names ...[]byte) error {
		for _, name := range names {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return nil
	}
	known := messagesOf(0, "2026-11")
	for name, test := range map[string]struct {
		before func(tx *bolt.Tx) error
		want   error
	}{
		"the messages' bucket": {func(*bolt.Tx) error { return nil }, berrors.ErrTxNotWritable},
		"the message":          {func(tx *bolt.Tx) error { return makeAll(tx, known.ids) }, berrors.ErrTxNotWritable},
		"a repeat":             {func(tx *bolt.Tx) error { return count{1}.Apply(tx, counted("2026-11")) }, berrors.ErrTxNotWritable},
	} {
		db, err := bolt.Open(filepath.Join(t.TempDir(), "use.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Update(test.before); err != nil {
			t.Fatal(err)
		}
		err = db.View(func(tx *bolt.Tx) error { return count{1}.Apply(tx, counted("2026-11")) })
		if !errors.Is(err, test.want) {
			t.Errorf("%s cannot be written: got %v, want %v", name, err, test.want)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that holds what no count is cannot be read, rather than counted from.
func TestLoadCounts_Unreadable(t *testing.T) {
	for name, put := range map[string]func(b *bolt.Bucket) error{
		"a short key":   func(b *bolt.Bucket) error { return b.Put([]byte("1234567"), []byte("12345678")) },
		"a short value": func(b *bolt.Bucket) error { return b.Put([]byte("2026-1112345678"), []byte("1234567")) },
	} {
		db, err := bolt.Open(filepath.Join(t.TempDir(), "use.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket(usedBucket)
			if err != nil {
				return err
			}
			if err := put(b); err != nil {
				return err
			}
			if _, err := loadCounts(tx); err == nil {
				t.Errorf("%s: got no error", name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = db.Close()
	}
}

// What is on a grant, and how much may be: at its bounds.
func TestGrants(t *testing.T) {
	for n, want := range map[int]bool{0: false, 1: true, 1000: true, 1001: false, -1: false} {
		if got := countable(n); got != want {
			t.Errorf("%d messages: got %t, want %t", n, got, want)
		}
	}
}
