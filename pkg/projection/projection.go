// Package projection maintains bbolt files that are folds of JetStream streams. Such a
// file can be deleted at any time: it is rebuilt from the streams, with the same
// content.
package projection

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// Event is one stored message of a stream.
type Event struct {
	Stream  string
	Subject string
	Kind    string // the header event.KindHeader, empty if there is none
	Seq     uint64
	Time    time.Time // when the stream stored it, UTC
	Header  nats.Header
	Data    []byte
}

// Source is a stream and those of its subjects that are folded. No subjects means
// all.
type Source struct {
	Stream   string
	Subjects []string
}

// Projection says what is folded and how.
type Projection interface {
	// Schema must be raised when Apply changes: the file is rebuilt then, it is never
	// migrated. It is also rebuilt when Sources change.
	Schema() int
	// Sources are the streams, each once. The events of one stream come in its order.
	// Those of different streams come in any order, and the result must not depend on
	// it.
	Sources() []Source
	// Apply writes the effect of an event. It must depend on tx and e only: no clock,
	// no network, no randomness. It must not keep tx or e after it returns. It returns
	// ErrUnreadable for an event that cannot be decoded, which is logged and skipped;
	// what Apply has written before stays. Any other error ends Run. Kinds of events
	// that Apply does not know come too, and it ignores them.
	Apply(tx *bolt.Tx, e Event) error
}

// ErrUnreadable says that an event cannot be decoded.
var ErrUnreadable = errors.New("event cannot be decoded")

// lenient skips events that cannot be decoded: one of them must not end a service for
// good.
type lenient struct {
	Projection
	log *zap.Logger
}

// Apply logs an event that cannot be decoded, and goes on.
func (l lenient) Apply(tx *bolt.Tx, e Event) error {
	err := l.Projection.Apply(tx, e)
	if errors.Is(err, ErrUnreadable) {
		l.log.Error("an event cannot be decoded and is set aside", zap.String("stream", e.Stream), zap.Uint64("seq", e.Seq), zap.Error(err))
		return nil
	}
	return err
}

// Options say how a File behaves. The zero value is usable.
type Options struct {
	// Committed is called after every commit to the live file with its events, before
	// Wait returns for them. The slice is valid only during the call.
	Committed func([]Event)
	// Replaced is called when the whole content has been replaced: in Open, and after
	// a rebuild before View shows the new content. It loads what mirrors the file in
	// memory.
	Replaced func(tx *bolt.Tx) error
	// Render makes a key and a value readable in Dump and Verify. Without it
	// they are written in hex.
	Render func(bucket, key, value []byte) (string, string)
	// Log gets warnings; nil drops them.
	Log *zap.Logger
	// BatchMax bounds the events of one transaction; 1,024 if 0.
	BatchMax int
}

func (o Options) withDefaults() Options {
	if o.Committed == nil {
		o.Committed = func([]Event) {}
	}
	if o.Replaced == nil {
		o.Replaced = func(*bolt.Tx) error { return nil }
	}
	if o.Render == nil {
		o.Render = renderHex
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.BatchMax <= 0 {
		o.BatchMax = 1024
	}
	return o
}

// schemaOf encodes the schema and the sources by which a file is folded.
func schemaOf(p Projection) []byte {
	lines := []string{}
	for _, s := range p.Sources() {
		subjects := slices.Sorted(slices.Values(s.Subjects))
		lines = append(lines, s.Stream+" "+strings.Join(subjects, " "))
	}
	slices.Sort(lines)
	return fmt.Appendf(nil, "%d\n%s", p.Schema(), strings.Join(lines, "\n"))
}
