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
		for _, name := range buckets {
			if tx.Bucket(name) == nil {
				continue
			}
			err := tx.Bucket(name).ForEach(func(key, value []byte) error {
				_, err := fmt.Fprintf(w, "%s %x %x\n", name, key, value)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}
