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
	// Limit: one operation on a bucket, such as those of sessions, webhooks and settings, takes at most 2 s. Beyond it:
	// ErrUnavailable: 503 registry_unavailable.
	// Used up by: an engine that is slow. Hurts: all accounts: their requests that need a bucket. Test: TestBucket_Late.
	within = 2 * time.Second
	// Limit: a change of a key is tried 5 times where others come first. Beyond it: ErrChanging: 503 changing, with
	// Retry-After.
	// Used up by: an account that changes one key, such as its settings, many times at once. Hurts: those requests
	// alone. Test: TestSettings.
	changeTries = 5
	// retrySoon is the Retry-After of both faults.
	retrySoon = time.Second
)

// Faults of buckets. Their codes are part of the APIs.
var (
	// ErrUnavailable: the bucket did not answer in time, or failed. A write may have been stored all the same.
	ErrUnavailable = &fault.Error{Kind: fault.Unavailable, Code: "registry_unavailable", Text: "This cannot be looked up or stored now, try again", RetryAfter: retrySoon}
	// ErrChanging: nothing was stored, because others change the same key.
	ErrChanging = &fault.Error{Kind: fault.Unavailable, Code: "changing", Text: "Others change this at the same time, try again", RetryAfter: retrySoon}
)

// Bucket reads and writes the keys of a bucket on behalf of requests. Each operation takes at most 2 s. One that fails,
// for whatever reason, gives ErrUnavailable with the cause.
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

// Get reads a key's value and revision. They are nil and 0 if it has none.
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

// Put stores a value, and replaces any that was there.
func (b Bucket) Put(ctx context.Context, key string, value []byte) error {
	return b.do(ctx, func(ctx context.Context, bucket jetstream.KeyValue) error {
		_, err := bucket.Put(ctx, key, value)
		return err
	})
}

// Create stores a value if the key has none, and reports whether it did.
func (b Bucket) Create(ctx context.Context, key string, value []byte) (created bool, err error) {
	err = b.do(ctx, func(ctx context.Context, bucket jetstream.KeyValue) error {
		_, err := bucket.Create(ctx, key, value)
		created = err == nil
		return unlessTaken(err)
	})
	return created, err
}

// Update stores a value if the key still has that revision (0: no value), and reports whether it did.
func (b Bucket) Update(ctx context.Context, key string, value []byte, revision uint64) (updated bool, err error) {
	err = b.do(ctx, func(ctx context.Context, bucket jetstream.KeyValue) error {
		_, err := bucket.Update(ctx, key, value, revision)
		updated = err == nil
		return unlessTaken(err)
	})
	return updated, err
}

// unlessTaken is nil for the errors of a write that another one has preceded: these are answers, not failures.
func unlessTaken(err error) error {
	if bus.IsConflict(err) || errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return nil
	}
	return err
}

// Change calls change with a key's value (nil: there is none), and stores and returns the value that this gives. If
// another writes the key meanwhile, it begins again, so change may be called several times. An error of change ends it
// and is returned as it is. The error is ErrChanging if others were faster five times.
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

// List reads the values of all keys that match keys, which may have wildcards, as JSON. Values that are no V are left out.
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
