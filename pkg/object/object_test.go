package object_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/object"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

const bucket = "files"

func newStore(t *testing.T) (*object.Store, *bus.Bus) {
	t.Helper()
	b := bustest.New(t)
	if _, err := b.JS.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	return object.Open(b, bucket), b
}

func random(size int) []byte {
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	return content
}

// stored counts the messages of the store, of chunks and descriptions alike.
func stored(t *testing.T, b *bus.Bus) uint64 {
	t.Helper()
	stream, err := b.JS.Stream(t.Context(), "OBJ_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

func TestPutAndRead(t *testing.T) {
	s, b := newStore(t)
	library, err := b.JS.ObjectStore(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, 128 << 10, 128<<10 + 1, 5 << 20} {
		want := random(size)
		told := int64(0)
		put, err := s.Put(t.Context(), iotest.HalfReader(bytes.NewReader(want)), func(bytes int64) { told = bytes })
		if err != nil {
			t.Fatal(err)
		}
		if told != int64(size) || put.Size != int64(size) {
			t.Errorf("put %d bytes: got %d told and %d", size, told, put.Size)
		}
		found, err := s.Find(t.Context(), put.Name)
		if err != nil || found.SHA256 != put.SHA256 || found.Put.IsZero() {
			t.Fatalf("find: got %+v, %v, want %+v", found, err, put)
		}
		var got bytes.Buffer
		if err := s.Read(t.Context(), found, &got, nil); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("read of %d bytes: got %d, %v", size, got.Len(), err)
		}
		if got, err := library.GetBytes(t.Context(), put.Name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the library reads %d of %d bytes, %v", len(got), size, err)
		}
		if err := s.Remove(t.Context(), put.Name); err != nil {
			t.Error(err)
		}
		if _, err := s.Find(t.Context(), put.Name); !errors.Is(err, object.ErrNotFound) {
			t.Errorf("find what was removed: got %v", err)
		}
	}
	if n := stored(t, b); n != 0 {
		t.Errorf("got %d messages left, want none", n)
	}
}

// An upload that ends half-way leaves nothing.
func TestPut_CutOff(t *testing.T) {
	s, b := newStore(t)
	broken := errors.New("the file cannot be read on")
	_, err := s.Put(t.Context(), io.MultiReader(bytes.NewReader(random(1<<20)), iotest.ErrReader(broken)), nil)
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = s.Put(ctx, bytes.NewReader(random(8<<20)), func(int64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	if n := stored(t, b); n != 0 {
		t.Errorf("got %d messages left, want none", n)
	}
}

func TestRead_Damaged(t *testing.T) {
	s, b := newStore(t)
	stream, err := b.JS.Stream(t.Context(), "OBJ_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(first uint64) error{
		"a chunk is gone":        func(first uint64) error { return stream.DeleteMsg(t.Context(), first+3) },
		"the last chunk is gone": func(first uint64) error { return stream.DeleteMsg(t.Context(), first+7) },
		"a chunk stands in another place": func(first uint64) error {
			m, err := stream.GetMsg(t.Context(), first+3)
			if err != nil {
				return err
			}
			_, err = b.JS.Publish(t.Context(), m.Subject, m.Data)
			return errors.Join(err, stream.DeleteMsg(t.Context(), first+3))
		},
		"a chunk too many": func(first uint64) error {
			m, err := stream.GetMsg(t.Context(), first+7)
			if err != nil {
				return err
			}
			_, err = b.JS.Publish(t.Context(), m.Subject, m.Data)
			return errors.Join(err, stream.DeleteMsg(t.Context(), first))
		},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := stream.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			put, err := s.Put(t.Context(), bytes.NewReader(random(1<<20)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(info.State.LastSeq + 1); err != nil {
				t.Fatal(err)
			}
			if err := s.Read(t.Context(), put, io.Discard, nil); !errors.Is(err, object.ErrDamaged) {
				t.Errorf("got %v, want ErrDamaged", err)
			}
		})
	}
}

// What nobody finished, and what nobody keeps, goes; what is young stays.
func TestSweep(t *testing.T) {
	s, b := newStore(t)
	kept, err := s.Put(t.Context(), bytes.NewReader(random(300<<10)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), bytes.NewReader(random(300<<10)), nil); err != nil {
		t.Fatal(err)
	}
	for range 3 { // of a process that was killed
		if _, err := b.JS.Publish(t.Context(), "$O."+bucket+".C.unfinished", random(1000)); err != nil {
			t.Fatal(err)
		}
	}
	keep := func(name string) bool { return name == kept.Name }
	if removed, err := s.Sweep(t.Context(), time.Now().Add(-time.Hour), keep); err != nil || removed != 0 {
		t.Errorf("what is young: got %d removed, %v", removed, err)
	}
	if removed, err := s.Sweep(t.Context(), time.Now().Add(time.Hour), keep); err != nil || removed != 2 {
		t.Errorf("got %d removed, %v, want 2", removed, err)
	}
	if got, want := stored(t, b), uint64(3+1); got != want {
		t.Errorf("got %d messages left, want %d", got, want)
	}
	if err := s.Read(t.Context(), kept, io.Discard, nil); err != nil {
		t.Error(err)
	}
}
