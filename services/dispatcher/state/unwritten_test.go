package state

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// contentOf is all that a transaction sees, bucket by bucket.
func contentOf(t rapid.TB, tx *bolt.Tx) string {
	t.Helper()
	var out strings.Builder
	err := tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			_, err := fmt.Fprintf(&out, "%s %x %x\n", name, k, v)
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// An event whose effect cannot be written is not taken for folded, whatever it would have changed.
func TestNothingUnwrittenIsFolded(t *testing.T) {
	dir, files := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		files++
		db, err := bolt.Open(filepath.Join(dir, fmt.Sprint(files, ".db")), 0o600, &bolt.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		h := drawHistory(t)
		for i, e := range append(h.enqueue, h.status...) {
			var unwritable error
			var before, after string
			_ = db.View(func(tx *bolt.Tx) error {
				before = contentOf(t, tx)
				unwritable = Fold{}.Apply(tx, e)
				return nil
			})
			err := db.Update(func(tx *bolt.Tx) error {
				if err := (Fold{}).Apply(tx, e); err != nil {
					return err
				}
				after = contentOf(t, tx)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if before != after && unwritable == nil {
				t.Fatalf("event %d, %s, changes something, and gave no error where nothing can be written", i, e.Kind)
			}
		}
	})
}
