package projection

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

// booksName is the bucket in which the file has its schema and its cursors.
var booksName = []byte("_projection")

var schemaKey = []byte("schema")

// cursor is how far a stream is folded. Time and creation serve to find out whether
// the stream is still the same one.
type cursor struct {
	seq     uint64 // of the last event applied; 0: none yet
	time    int64  // when that event was stored, in ns
	created int64  // when the stream was created, in ns; 0: not known
}

func cursorKey(stream string) []byte { return []byte("cursor/" + stream) }

func (c cursor) bytes() []byte {
	b := make([]byte, 0, 24)
	b = binary.BigEndian.AppendUint64(b, c.seq)
	b = binary.BigEndian.AppendUint64(b, uint64(c.time))
	return binary.BigEndian.AppendUint64(b, uint64(c.created))
}

// cursors are the cursors of a file, by stream.
type cursors map[string]cursor

func readCursors(tx *bolt.Tx, sources []Source) (cursors, error) {
	at := make(cursors, len(sources))
	for _, s := range sources {
		b := tx.Bucket(booksName).Get(cursorKey(s.Stream))
		if b == nil {
			continue
		}
		c, err := decodeCursor(b)
		if err != nil {
			return nil, fmt.Errorf("read cursor of %s: %w", s.Stream, err)
		}
		at[s.Stream] = c
	}
	return at, nil
}

func decodeCursor(b []byte) (cursor, error) {
	if len(b) != 24 {
		return cursor{}, fmt.Errorf("it has %d bytes", len(b))
	}
	return cursor{
		seq:     binary.BigEndian.Uint64(b),
		time:    int64(binary.BigEndian.Uint64(b[8:])),
		created: int64(binary.BigEndian.Uint64(b[16:])),
	}, nil
}

func writeCursor(tx *bolt.Tx, stream string, c cursor) error {
	if err := tx.Bucket(booksName).Put(cursorKey(stream), c.bytes()); err != nil {
		return fmt.Errorf("write cursor of %s: %w", stream, err)
	}
	return nil
}

// errLost says that a stream is not the one that was folded: it was lost, restored,
// cut or recreated, or events are gone that were never read.
var errLost = errors.New("stream is not what was folded")

// checkCursor checks that a stream still has the event at a cursor, or has aged out
// exactly up to it. It returns the stream's creation time.
func checkCursor(ctx context.Context, b *bus.Bus, stream string, at cursor) (int64, error) {
	var last *jetstream.RawStreamMsg
	var err error
	if at.seq != 0 {
		// The event is read before the state of the stream. If it ages out between the
		// two answers, the state shows that.
		last, err = b.Get(ctx, stream, at.seq)
		if err != nil && !errors.Is(err, bus.ErrNoMessage) {
			return 0, err
		}
	}
	s, err := b.JS.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("read state of %s: %w", stream, err)
	}
	info := s.CachedInfo()
	created := info.Created.UnixNano()
	switch {
	case at.created != 0 && at.created != created:
		return 0, fmt.Errorf("%w: %s was recreated at %v", errLost, stream, info.Created)
	case at.seq == 0:
	case last != nil && last.Time.UnixNano() != at.time:
		return 0, fmt.Errorf("%w: %s has another event at %d", errLost, stream, at.seq)
	case last != nil:
	case info.State.FirstSeq != at.seq+1:
		return 0, fmt.Errorf("%w: %s has no event %d and begins at %d", errLost, stream, at.seq, info.State.FirstSeq)
	}
	return created, nil
}
