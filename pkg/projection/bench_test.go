package projection_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// last is about the cheapest projection: it keeps the last event of a stream.
type last struct{}

func (last) Schema() int                  { return 1 }
func (last) Sources() []projection.Source { return []projection.Source{{Stream: orders}} }

func (last) Apply(tx *bolt.Tx, e projection.Event) error {
	b, err := tx.CreateBucketIfNotExists([]byte("last"))
	if err != nil {
		return err
	}
	return b.Put([]byte(e.Stream), binary.BigEndian.AppendUint64(nil, e.Seq))
}

// BenchmarkFold measures a fold from nothing.
func BenchmarkFold(b *testing.B) {
	const events = 100_000
	js := bustest.New(b)
	makeStreams(b, js)
	publishMany(b, js, events)
	for _, p := range []projection.Projection{last{}, tally{}} {
		for _, size := range []int{1, 16, 256, 1024, 4096} {
			b.Run(fmt.Sprintf("%T/batch=%d", p, size), func(b *testing.B) {
				folded := 0
				for b.Loop() {
					f := start(b, filepath.Join(b.TempDir(), "fold.db"), js, p, projection.Options{
						BatchMax:  size,
						Committed: func(e []projection.Event) { folded += len(e) },
					})
					ctx, cancel := patient(b)
					if err := f.Ready(ctx); err != nil {
						b.Fatal(err)
					}
					cancel()
					f.stop()
				}
				b.ReportMetric(float64(folded)/b.Elapsed().Seconds(), "events/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkWait measures how long after its publish an event is applied, with
// nothing else going on; the publish is part of it.
func BenchmarkWait(b *testing.B) {
	js := bustest.New(b)
	makeStreams(b, js)
	f := start(b, filepath.Join(b.TempDir(), "wait.db"), js, tally{}, projection.Options{})
	if err := f.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Run("publish", func(b *testing.B) {
		for b.Loop() {
			publish(b, js, orders+".a", "1")
		}
	})
	b.Run("publish and wait", func(b *testing.B) {
		for b.Loop() {
			f.await(orders, publish(b, js, orders+".a", "1"))
		}
	})
}
