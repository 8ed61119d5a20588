package projection_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/projection"
)

const (
	orders   = "ORDERS"
	payments = "PAYMENTS"
)

var streams = []string{orders, payments}

// tally is a projection that keeps every event's data and counts them by
// subject. It notices an event that comes twice.
type tally struct {
	schema   int
	subjects []string // of both streams
}

func (p tally) Schema() int { return p.schema }

func (p tally) Sources() []projection.Source {
	sources := []projection.Source{}
	for _, stream := range streams {
		s := projection.Source{Stream: stream}
		for _, subject := range p.subjects {
			s.Subjects = append(s.Subjects, stream+"."+subject)
		}
		sources = append(sources, s)
	}
	return sources
}

func (p tally) Apply(tx *bolt.Tx, e projection.Event) error {
	if bytes.Equal(e.Data, []byte("garbled")) {
		return errors.New("not a tally event")
	}
	if bytes.Equal(e.Data, []byte("unreadable")) {
		return fmt.Errorf("%w: it says so", projection.ErrUnreadable)
	}
	events, err := tx.CreateBucketIfNotExists([]byte("events"))
	if err != nil {
		return err
	}
	key := eventKey(e.Stream, e.Seq)
	if events.Get(key) != nil {
		return errors.New("came twice")
	}
	if err := events.Put(key, e.Data); err != nil {
		return err
	}
	counts, err := tx.CreateBucketIfNotExists([]byte("counts"))
	if err != nil {
		return err
	}
	n := uint64(1)
	if b := counts.Get([]byte(e.Subject)); b != nil {
		n += binary.BigEndian.Uint64(b)
	}
	return counts.Put([]byte(e.Subject), binary.BigEndian.AppendUint64(nil, n))
}

func eventKey(stream string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(stream), seq)
}

// counts reads what a tally counted.
func counts(t *testing.T, f *projection.File) map[string]int {
	t.Helper()
	got := map[string]int{}
	err := f.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("counts"))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			got[string(k)] = int(binary.BigEndian.Uint64(v))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// makeStreams makes both streams.
func makeStreams(t testing.TB, b *bus.Bus) {
	t.Helper()
	for _, name := range streams {
		makeStream(t, b, name)
	}
}

func makeStream(t testing.TB, b *bus.Bus, name string) {
	t.Helper()
	_, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: name, Subjects: []string{name + ".>"}, AllowDirect: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// publish stores one event and gives its sequence.
func publish(t testing.TB, b *bus.Bus, subject, data string) uint64 {
	t.Helper()
	ack, err := b.JS.Publish(t.Context(), subject, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// publishMany stores n events on each stream, on the subjects a, b and c in
// turn.
func publishMany(t testing.TB, b *bus.Bus, n int) {
	t.Helper()
	for i := range n {
		for _, stream := range streams {
			m := nats.NewMsg(fmt.Sprintf("%s.%c", stream, 'a'+i%3))
			m.Data = fmt.Appendf(nil, "%d", i)
			m.Header.Set("Trunkline-Kind", "tally.v1")
			if _, err := b.JS.PublishMsgAsync(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case <-b.JS.PublishAsyncComplete():
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

func lastSeq(t testing.TB, b *bus.Bus, stream string) uint64 {
	t.Helper()
	s, err := b.JS.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

// running is an open file that Run follows.
type running struct {
	*projection.File
	t      testing.TB
	cancel context.CancelFunc
	result chan error
	over   bool
}

// start opens a file and follows it, until the test ends or stop.
func start(t testing.TB, path string, b *bus.Bus, p projection.Projection, o projection.Options) *running {
	t.Helper()
	f, err := projection.Open(path, b, p, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{File: f, t: t, cancel: cancel, result: make(chan error, 1)}
	go func() { r.result <- f.Run(ctx) }()
	t.Cleanup(r.stop)
	return r
}

// stop ends Run, which must not have failed, and closes the file.
func (r *running) stop() {
	r.t.Helper()
	if r.over {
		return
	}
	r.over = true
	r.cancel()
	if err := <-r.result; err != nil {
		r.t.Errorf("run ended: %v", err)
	}
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
}

// fail waits for Run to fail, and closes the file.
func (r *running) fail() error {
	r.t.Helper()
	r.over = true
	err := <-r.result
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
	return err
}

// catchUp waits until the file holds all that the streams hold.
func (r *running) catchUp(b *bus.Bus) {
	r.t.Helper()
	for _, stream := range streams {
		r.await(stream, lastSeq(r.t, b, stream))
	}
}

func (r *running) await(stream string, seq uint64) {
	r.t.Helper()
	ctx, cancel := patient(r.t)
	defer cancel()
	if err := r.Wait(ctx, stream, seq); err != nil {
		r.t.Fatal(err)
	}
}

// patient bounds what would else hang.
func patient(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), time.Minute)
}

func dump(t testing.TB, f *projection.File) string {
	t.Helper()
	var out bytes.Buffer
	if err := f.Dump(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// foldAnew gives the dump of a file folded from nothing.
func foldAnew(t testing.TB, b *bus.Bus, p projection.Projection) string {
	t.Helper()
	f := start(t, filepath.Join(t.TempDir(), "rebuilt.db"), b, p, projection.Options{})
	defer f.stop()
	ready(t, f)
	return dump(t, f.File)
}

func ready(t testing.TB, f *running) {
	t.Helper()
	ctx, cancel := patient(t)
	defer cancel()
	if err := f.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}
