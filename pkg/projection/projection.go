// Package projection keeps a bbolt file that is a fold of JetStream streams:
// it can be deleted at any time and is folded anew, giving the same content.
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
	Kind    string // of the header event.KindHeader; empty if it has none
	Seq     uint64
	Time    time.Time // when the stream stored it, UTC
	Header  nats.Header
	Data    []byte
}

// Source is a stream and the subjects in it that are folded; none means all.
type Source struct {
	Stream   string
	Subjects []string
}

// Projection says what is folded and how.
type Projection interface {
	// Schema is raised when Apply changes: the file is then folded anew, never
	// migrated. A change of Sources does the same by itself.
	Schema() int
	// Sources are the streams, each named once. The events of one stream come
	// in its order; those of two streams come in any, so Apply must commute
	// across streams.
	Sources() []Source
	// Apply writes an event's effect. It must depend on tx and e only: no
	// clock, no network, no randomness. Neither tx nor e may be kept. An event
	// that cannot be decoded is ErrUnreadable: it is logged and set aside, and
	// what Apply wrote before it said so stays. Any other error stops Run. A
	// kind that Apply does not know is its own to ignore.
	Apply(tx *bolt.Tx, e Event) error
}

// ErrUnreadable says that an event cannot be decoded.
var ErrUnreadable = errors.New("event cannot be decoded")

// lenient sets aside what cannot be decoded: one such event must not end a
// service for good.
type lenient struct {
	Projection
	log *zap.Logger
}

func (l lenient) Apply(tx *bolt.Tx, e Event) error {
	err := l.Projection.Apply(tx, e)
	if errors.Is(err, ErrUnreadable) {
		l.log.Error("an event cannot be decoded and is set aside", zap.String("stream", e.Stream), zap.Uint64("seq", e.Seq), zap.Error(err))
		return nil
	}
	return err
}

// Options say how a File behaves. The zero value will do.
type Options struct {
	// Committed is called after every commit to the live file, with the events
	// of that commit, before Wait returns for them. The slice is only valid
	// during the call.
	Committed func([]Event)
	// Replaced is called when the content was exchanged as a whole: in Open,
	// and after a rebuild before View shows the new content. Memory that
	// mirrors the file is loaded here.
	Replaced func(tx *bolt.Tx) error
	// Render makes a key and a value readable in Dump and Verify. Without it
	// they are written in hex.
	Render func(bucket, key, value []byte) (string, string)
	// Log takes warnings; nil drops them.
	Log *zap.Logger
	// BatchMax bounds the events of one transaction, default 1024.
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

// schemaOf says in bytes what a file was folded by.
func schemaOf(p Projection) []byte {
	lines := []string{}
	for _, s := range p.Sources() {
		subjects := slices.Sorted(slices.Values(s.Subjects))
		lines = append(lines, s.Stream+" "+strings.Join(subjects, " "))
	}
	slices.Sort(lines)
	return fmt.Appendf(nil, "%d\n%s", p.Schema(), strings.Join(lines, "\n"))
}
