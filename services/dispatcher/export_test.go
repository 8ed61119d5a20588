package dispatcher

import (
	"fmt"
	"io"
	"time"

	bolt "go.etcd.io/bbolt"
)

// DumpFile prints the content of a projection that nobody has open.
func DumpFile(w io.Writer, path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			if string(name) == "_projection" { // the cursors, which depend on how it was folded
				return nil
			}
			return b.ForEach(func(key, value []byte) error {
				_, err := fmt.Fprintf(w, "%s %x %x\n", name, key, value)
				return err
			})
		})
	})
}
