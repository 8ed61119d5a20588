// Package object puts files into JetStream object stores and reads them back,
// a few chunks at a time: the memory it takes does not grow with the file. What
// it writes is what the client library's own object stores read.
package object

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

const (
	chunkSize = 128 << 10
	// inFlight chunks are on their way at a time. The client library's own Put
	// has thousands, which the engine would have to hold in memory.
	inFlight = 16
	// readAhead chunks are asked for at a time: more do not come faster, but are
	// held by the engine, the connection, and here.
	readAhead = 4
	// chunkWait is how long a chunk may take to be stored, or to arrive.
	chunkWait = 10 * time.Second
	// tidyWait bounds the removal of what was stored of a file in vain.
	tidyWait = 10 * time.Second

	digestType = "SHA-256="
)

// ErrNotFound says that there is no such object.
var ErrNotFound = errors.New("there is no such object")

// ErrDamaged says that what the store gives is not what was put into it.
var ErrDamaged = errors.New("the object is damaged in the store")

// Store is an object store.
type Store struct {
	bus    *bus.Bus
	bucket string
}

// Open gives an object store, which must be there once it is used.
func Open(b *bus.Bus, bucket string) *Store { return &Store{b, bucket} }

// Object is a file in the store.
type Object struct {
	Name   string
	Size   int64
	SHA256 string    // hex
	Put    time.Time // when the last of it was stored

	nuid   string
	chunks int
}

// Put stores what it reads to the end under a new name. stored, if it is not
// nil, is told of all bytes that are stored so far. When Put fails, or ctx ends
// it, what was stored is removed.
func (s *Store) Put(ctx context.Context, r io.Reader, stored func(bytes int64)) (Object, error) {
	o := Object{Name: nuid.Next(), nuid: nuid.Next()}
	put, err := s.put(ctx, o, r, stored)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyWait)
		defer cancel()
		return Object{}, fmt.Errorf("store a file in %s: %w", s.bucket, errors.Join(err, s.remove(ctx, o)))
	}
	return put, nil
}

func (s *Store) put(ctx context.Context, o Object, r io.Reader, stored func(int64)) (Object, error) {
	type sent struct {
		ack  jetstream.PubAckFuture
		size int64
	}
	var waiting []sent
	var done int64
	defer func() {
		// What is still on its way must not arrive after it was removed.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyWait)
		defer cancel()
		for _, one := range waiting {
			_ = acked(ctx, one.ack)
		}
	}()
	settle := func() error {
		one := waiting[0]
		waiting = waiting[1:]
		if err := acked(ctx, one.ack); err != nil {
			return err
		}
		done += one.size
		if stored != nil {
			stored(done)
		}
		return nil
	}
	sum := sha256.New()
	for {
		// The library keeps the message until it is acked.
		chunk := make([]byte, chunkSize)
		n, err := io.ReadFull(r, chunk)
		if n > 0 {
			sum.Write(chunk[:n])
			ack, err := s.bus.JS.PublishMsgAsync(&nats.Msg{Subject: s.chunks(o.nuid), Data: chunk[:n]})
			if err != nil {
				return o, err
			}
			o.Size += int64(n)
			o.chunks++
			waiting = append(waiting, sent{ack, int64(n)})
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return o, err
		}
		for len(waiting) >= inFlight || err != nil && len(waiting) > 0 {
			if err := settle(); err != nil {
				return o, err
			}
		}
		if err != nil {
			break
		}
	}
	o.SHA256 = hex.EncodeToString(sum.Sum(nil))
	data, err := json.Marshal(jetstream.ObjectInfo{
		ObjectMeta: jetstream.ObjectMeta{Name: o.Name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize}},
		Bucket:     s.bucket,
		NUID:       o.nuid,
		Size:       uint64(o.Size),
		Chunks:     uint32(o.chunks),
		Digest:     jetstream.GetObjectDigestValue(sum),
	})
	if err != nil {
		return o, err
	}
	_, err = s.bus.JS.PublishMsg(ctx, &nats.Msg{
		Subject: s.meta(o.Name),
		Header:  nats.Header{jetstream.MsgRollup: {jetstream.MsgRollupSubject}},
		Data:    data,
	})
	return o, err
}

func acked(ctx context.Context, ack jetstream.PubAckFuture) error {
	late := time.NewTimer(chunkWait)
	defer late.Stop()
	select {
	case <-ack.Ok():
		return nil
	case err := <-ack.Err():
		return err
	case <-late.C:
		return errors.New("the engine does not answer")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Find gives an object of that name, or ErrNotFound.
func (s *Store) Find(ctx context.Context, name string) (Object, error) {
	m, err := s.bus.LastForSubject(ctx, s.stream(), s.meta(name))
	if errors.Is(err, bus.ErrNoMessage) {
		err = ErrNotFound
	}
	if err != nil {
		return Object{}, fmt.Errorf("find object %s: %w", name, err)
	}
	o, deleted, err := parse(m.Data)
	if err == nil && deleted {
		err = ErrNotFound
	}
	if err != nil {
		return Object{}, fmt.Errorf("find object %s: %w", name, err)
	}
	o.Put = m.Time
	return o, nil
}

func parse(data []byte) (o Object, deleted bool, err error) {
	var info jetstream.ObjectInfo
	if err := json.Unmarshal(data, &info); err != nil {
		return o, false, fmt.Errorf("%w: its description cannot be read", ErrDamaged)
	}
	o = Object{Name: info.Name, Size: int64(info.Size), nuid: info.NUID, chunks: int(info.Chunks)}
	digest, err := base64.URLEncoding.DecodeString(strings.TrimPrefix(info.Digest, digestType))
	if err != nil || o.nuid == "" || o.Size < 0 {
		return o, info.Deleted, fmt.Errorf("%w: its description is not one", ErrDamaged)
	}
	o.SHA256 = hex.EncodeToString(digest)
	return o, info.Deleted, nil
}

// Read writes an object to w and checks it: the error is ErrDamaged if that was
// not what was once put. What w got is then worth nothing. progress, if it is
// not nil, is told of all bytes that w has.
func (s *Store) Read(ctx context.Context, o Object, w io.Writer, progress func(bytes int64)) error {
	if err := s.read(ctx, o, w, progress); err != nil {
		return fmt.Errorf("read object %s: %w", o.Name, err)
	}
	return nil
}

func (s *Store) read(ctx context.Context, o Object, w io.Writer, progress func(int64)) error {
	consumer, err := s.bus.JS.CreateConsumer(ctx, s.stream(), jetstream.ConsumerConfig{
		Description:       "reading a file",
		FilterSubject:     s.chunks(o.nuid),
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: time.Minute,
	})
	if err != nil {
		return err
	}
	name := consumer.CachedInfo().Name
	defer func() {
		// One that stays is removed by the engine when nobody pulls.
		_ = s.bus.JS.DeleteConsumer(context.WithoutCancel(ctx), s.stream(), name)
	}()
	sum := sha256.New()
	out := io.MultiWriter(sum, w)
	read := int64(0)
	for left := o.chunks; left > 0; {
		// A damaged chunk is passed over, and leaves one to wait for in vain.
		chunks, err := s.bus.Fetch(ctx, s.stream(), name, min(left, readAhead), time.Second)
		if err != nil {
			return err
		}
		if len(chunks) == 0 {
			return fmt.Errorf("%w: %d of %d chunks are missing", ErrDamaged, left, o.chunks)
		}
		for _, chunk := range chunks {
			if read += int64(len(chunk.Data)); read > o.Size {
				return fmt.Errorf("%w: it is longer than it was", ErrDamaged)
			}
			if _, err := out.Write(chunk.Data); err != nil {
				return err
			}
		}
		left -= len(chunks)
		if progress != nil {
			progress(read)
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != o.SHA256 || read != o.Size {
		return fmt.Errorf("%w: its digest or its size is another", ErrDamaged)
	}
	return nil
}

// Remove removes an object; one that is not there is no error.
func (s *Store) Remove(ctx context.Context, name string) error {
	o, err := s.Find(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.remove(ctx, o)
}

// remove removes the chunks last: while any is left, List finds it.
func (s *Store) remove(ctx context.Context, o Object) error {
	stream, err := s.bus.JS.Stream(ctx, s.stream())
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(s.meta(o.Name)))
	}
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(s.chunks(o.nuid)))
	}
	if err != nil {
		return fmt.Errorf("remove object %s: %w", o.Name, err)
	}
	return nil
}

// Sweep removes what was stored before a time and is not kept: whole objects by
// their name, and what is left of uploads that were never finished.
func (s *Store) Sweep(ctx context.Context, before time.Time, keep func(name string) bool) (removed int, err error) {
	stream, err := s.bus.JS.Stream(ctx, s.stream())
	if err != nil {
		return 0, fmt.Errorf("sweep %s: %w", s.bucket, err)
	}
	kept := map[string]bool{} // chunks' subjects
	metas, err := subjects(ctx, stream, "$O."+s.bucket+".M.>")
	if err != nil {
		return 0, fmt.Errorf("sweep %s: %w", s.bucket, err)
	}
	for _, subject := range metas {
		m, err := s.bus.LastForSubject(ctx, s.stream(), subject)
		if errors.Is(err, bus.ErrNoMessage) {
			continue
		}
		if err != nil {
			return removed, fmt.Errorf("sweep %s: %w", s.bucket, err)
		}
		o, _, err := parse(m.Data)
		kept[s.chunks(o.nuid)] = true
		if err != nil || !m.Time.Before(before) || keep(o.Name) {
			continue
		}
		if err := s.remove(ctx, o); err != nil {
			return removed, err
		}
		removed++
	}
	chunks, err := subjects(ctx, stream, "$O."+s.bucket+".C.>")
	if err != nil {
		return removed, fmt.Errorf("sweep %s: %w", s.bucket, err)
	}
	for _, subject := range chunks {
		if kept[subject] {
			continue
		}
		m, err := s.bus.LastForSubject(ctx, s.stream(), subject)
		if err != nil || !m.Time.Before(before) {
			continue // removed meanwhile, or still being uploaded
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return removed, fmt.Errorf("sweep %s: %w", s.bucket, err)
		}
		removed++
	}
	return removed, nil
}

// subjects lists those that have messages.
func subjects(ctx context.Context, stream jetstream.Stream, filter string) ([]string, error) {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, err
	}
	var all []string
	for subject := range info.State.Subjects {
		all = append(all, subject)
	}
	return all, nil
}

func (s *Store) stream() string { return "OBJ_" + s.bucket }

func (s *Store) chunks(nuid string) string { return "$O." + s.bucket + ".C." + nuid }

func (s *Store) meta(name string) string {
	return "$O." + s.bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}
