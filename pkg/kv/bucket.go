package kv

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
)

const (
	// within is how long one operation on a bucket may take. Used up by an engine that is slow: the request that needs
	// the bucket gets ErrUnavailable.
	within = 2 * time.Second
	// changeTries is how often a change is tried again because another one came first. Used up by an
	// account that changes one key many times at once, and only those requests get ErrChanging.
	changeTries = 5
	// retrySoon is when to come again.
	retrySoon = time.Second
)

// Faults of buckets. Clients of the APIs know their codes.
var (
	// ErrUnavailable says that the bucket did not answer in time, or not as it should. A write may have been stored.
	ErrUnavailable = &fault.Error{Kind: fault.Unavailable, Code: "registry_unavailable", Text: "This cannot be looked up or stored now, try again", RetryAfter: retrySoon}
	// ErrChanging says that nothing was stored because others change the same key.
	ErrChanging = &fault.Error{Kind: fault.Unavailable, Code: "changing", Text: "Others change this at the same time, try again", RetryAfter: retrySoon}
)

// Bucket reads and writes keys of a bucket. Each operation takes at most two seconds. One that fails, for whatever
// reason, gives an ErrUnavailable with the cause.
type Bucket struct {
	Bus  *bus.Bus
	Name string
}

// do opens the bucket and calls f with it.
func (b Bucket) do(ctx context.Context, f func(context.Context, jetstream.KeyValue) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	bucket, err := b.Bus.JS.KeyValue(ctx, b.Name)
	if err == nil {
		err = f(ctx, bucket)
	}
	if err != nil {
		return ErrUnavailable.With(err)
	}
	return nil
}

// Get gives a key's value and revision: nil and 0 if there is none.
func (b Bucket) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	err = b.do(ctx, func(ctx context.Context, bucket jetstream.KeyValue) error {
		entry, err := bucket.Get(ctx, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			return nil
		case err != nil:
			return err
		}
		value, revision = entry.Value(), entry.Revision()
		return nil
	})
	return value, revision, err
}

// Put stores a value, whatever was there.
func (b Bucket) Put(ctx context.Context, key string, value []byte) error {
	return b.do(ctx, func(ctx context.Context, bucket jetstream.KeyValue) error {
		_, err := bucket.Put(ctx, key, value)
		return err
	})
}

// Create stores a value, and says whether it did: not where the key has one.
func (b Bucket) Create(ctx context.Context, key string, value []byte) (created bool, err error) {
	err = b.do(ctx, func(ctx context.Context, bucket jetstream.KeyValue) error {
		_, err := bucket.Create(ctx, key, value)
		created = err == nil
		return unlessTaken(err)
	})
	return created, err
}

// Update stores a value if the key still has that revision (0: no value), and says whether it did.
func (b Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (updated bool, err error) {
	err = b.do(ctx, func(ctx context.Context, bucket jetstream.KeyValue) error {
		_, err := bucket.Update(ctx, key, value, revision)
		updated = err == nil
		return unlessTaken(err)
	})
	return updated, err
}

// unlessTaken is nil for an error that says that somebody else has stored something.
func unlessTaken(err error) error {
	if bus.IsConflict(err) || errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return nil
	}
	return err
}

// Change stores what change makes of a key's value (nil: there is none), and gives that. Changes at the same time follow
// each other, so change may be called several times. Its error ends the change and is returned as it is; ErrChanging
// says that others were always faster.
func (b Bucket) Change(ctx context.Context, key string, change func(before []byte) (after []byte, err error)) ([]byte, error) {
	for range changeTries {
		before, revision, err := b.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		after, err := change(before)
		if err != nil {
			return nil, err
		}
		updated, err := b.Update(ctx, key, after, revision)
		if err != nil || updated {
			return after, err
		}
	}
	return nil, ErrChanging
}

// Delete removes a key's value, if it has one. A marker stays in its place until Sweep.
func (b Bucket) Delete(ctx context.Context, key string) error {
	return b.do(ctx, func(ctx context.Context, bucket jetstream.KeyValue) error { return bucket.Delete(ctx, key) })
}

// List reads the values under keys, a key with wildcards, as JSON. Those that cannot be read are left out.
func List[V any](ctx context.Context, b Bucket, keys string) ([]V, error) {
	var all []V
	err := b.do(ctx, func(ctx context.Context, bucket jetstream.KeyValue) error {
		watcher, err := bucket.Watch(ctx, keys, jetstream.IgnoreDeletes())
		if err != nil {
			return err
		}
		return Each(ctx, watcher, func(entry jetstream.KeyValueEntry) bool {
			var v V
			if json.Unmarshal(entry.Value(), &v) == nil {
				all = append(all, v)
			}
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}
