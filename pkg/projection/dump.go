package projection

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// Dump writes every key of every bucket in order, one line each: the bucket, the key
// and the value, as Options.Render gives them. A nested bucket is written with its
// path. The sequence of a bucket is a line of its own. Schema and cursors are left
// out, so that equal content gives equal bytes.
func (f *File) Dump(w io.Writer) error {
	out := bufio.NewWriter(w)
	err := f.View(func(tx *bolt.Tx) error {
		for e := range entries(tx) {
			if _, err := out.WriteString(e.line(f.o.Render) + "\n"); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("dump projection: %w", err)
	}
	return nil
}

// entry is a key of a bucket, or a bucket's sequence.
type entry struct {
	path     [][]byte // names of buckets and, for a key, the key
	value    []byte   // nil: it is a sequence
	sequence uint64
}

func (e entry) line(render func(bucket, key, value []byte) (string, string)) string {
	if e.value == nil {
		return bucketText(e.path) + " #" + strconv.FormatUint(e.sequence, 10)
	}
	last := len(e.path) - 1
	key, value := render(bytes.Join(e.path[:last], []byte("/")), e.path[last], e.value)
	return bucketText(e.path[:last]) + " " + key + " " + value
}

func bucketText(path [][]byte) string {
	names := make([]string, len(path))
	for i, name := range path {
		names[i] = string(name)
		if quoted := strconv.Quote(names[i]); len(quoted) != len(name)+2 || strings.ContainsAny(names[i], " /#") {
			names[i] = quoted
		}
	}
	return strings.Join(names, "/")
}

func renderHex(_, key, value []byte) (string, string) {
	return hex.EncodeToString(key), hex.EncodeToString(value)
}

// entries gives what Apply has written, in the order of the paths.
func entries(tx *bolt.Tx) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		c := tx.Cursor()
		for name, _ := c.First(); name != nil; name, _ = c.Next() {
			if bytes.Equal(name, booksName) {
				continue
			}
			if !walk(tx.Bucket(name), [][]byte{name}, yield) {
				return
			}
		}
	}
}

func walk(b *bolt.Bucket, path [][]byte, yield func(entry) bool) bool {
	if n := b.Sequence(); n != 0 && !yield(entry{path: path, sequence: n}) {
		return false
	}
	c := b.Cursor()
	for key, value := c.First(); key != nil; key, value = c.Next() {
		below := append(slices.Clip(path), key)
		if value == nil {
			if !walk(b.Bucket(key), below, yield) {
				return false
			}
		} else if !yield(entry{path: below, value: value}) {
			return false
		}
	}
	return true
}

// compare describes the first difference between the content of two files; empty if
// there is none.
func compare(live, rebuilt *bolt.Tx, render func(bucket, key, value []byte) (string, string)) string {
	nextLive, stopLive := iter.Pull(entries(live))
	defer stopLive()
	nextRebuilt, stopRebuilt := iter.Pull(entries(rebuilt))
	defer stopRebuilt()
	for {
		a, inLive := nextLive()
		b, inRebuilt := nextRebuilt()
		if !inLive && !inRebuilt {
			return ""
		}
		order := slices.CompareFunc(a.path, b.path, bytes.Compare)
		switch {
		case !inRebuilt || inLive && order < 0:
			return "only the live file has: " + a.line(render)
		case !inLive || order > 0:
			return "only the rebuilt file has: " + b.line(render)
		case !bytes.Equal(a.value, b.value) || a.sequence != b.sequence:
			return "the live file has: " + a.line(render) + "; the rebuilt one: " + b.line(render)
		}
	}
}
