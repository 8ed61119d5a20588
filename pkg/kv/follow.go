package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

// errEnded says that the engine has ended a watch.
var errEnded = errors.New("the watch has ended")

// Follower calls a function with everything that a bucket holds, and with every change of it.
type Follower struct {
	loaded chan struct{} // closed once the bucket has been read
	once   sync.Once
}

// NewFollower makes a follower of a bucket that has not been read yet.
func NewFollower() *Follower { return &Follower{loaded: make(chan struct{})} }

// Loaded is closed once everything that the bucket held has been applied.
func (f *Follower) Loaded() <-chan struct{} { return f.loaded }

// IsLoaded says whether Loaded is closed.
func (f *Follower) IsLoaded() bool {
	select {
	case <-f.loaded:
		return true
	default:
		return false
	}
}

// Follow calls apply with what the bucket holds and with what changes, one entry after another, until ctx is done. An
// error says that changes are missed from now on: another Follow reads everything again.
func (f *Follower) Follow(ctx context.Context, bucket jetstream.KeyValue, apply func(jetstream.KeyValueEntry)) error {
	err := f.follow(ctx, bucket, apply)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch bucket %s: %w", bucket.Bucket(), err)
	}
	return nil
}

func (f *Follower) follow(ctx context.Context, bucket jetstream.KeyValue, apply func(jetstream.KeyValueEntry)) error {
	watcher, err := bucket.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer bus.EndWatch(watcher)
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return errEnded
			case entry == nil:
				f.once.Do(func() { close(f.loaded) })
			default:
				apply(entry)
			}
		}
	}
}

// Each calls f with what a watch gives until it has given everything that the bucket holds, or f says false. It ends the
// watch.
func Each(ctx context.Context, watcher jetstream.KeyWatcher, f func(jetstream.KeyValueEntry) bool) error {
	defer bus.EndWatch(watcher)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return errEnded
			case entry == nil || !f(entry):
				return nil
			}
		}
	}
}
