// Package kv is how services use buckets: open one, watch one, read and change its keys, and hold a claim in one.
package kv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/retry"
)

// openAgain is the pause before a bucket is opened, or watched, again.
const openAgain = time.Second

// Open opens a bucket, and tries again until it can. It fails only when ctx is
// done or the connection is closed.
func Open(ctx context.Context, b *bus.Bus, bucket string, log *zap.Logger) (opened jetstream.KeyValue, err error) {
	failed := func(err error) {
		log.Warn("bucket not opened, trying again", zap.String("bucket", bucket), zap.Error(err))
	}
	err = retry.Do(ctx, openAgain, failed, func() error {
		var err error
		opened, err = b.JS.KeyValue(ctx, bucket)
		if err != nil && ctx.Err() == nil && b.Conn.IsClosed() {
			return retry.Stop(fmt.Errorf("open bucket %s: %w", bucket, err))
		}
		return err
	})
	return opened, err
}

// Follow calls see with each entry of a watch, and with nil once all have come
// that were in the bucket when the watch began. The engine may end a watch, for
// example when its node is lost. Follow then begins a new one, and see gets all
// entries again. It returns nil when ctx is done, and fails when the connection
// is closed.
func Follow(ctx context.Context, b *bus.Bus, bucket string, log *zap.Logger, watch func() (jetstream.KeyWatcher, error), see func(jetstream.KeyValueEntry)) error {
	failed := func(err error) { log.Warn("watching a bucket again", zap.String("bucket", bucket), zap.Error(err)) }
	err := retry.Do(ctx, openAgain, failed, func() error {
		err := followOnce(ctx, watch, see)
		if b.Conn.IsClosed() {
			return retry.Stop(fmt.Errorf("watch bucket %s: %w", bucket, err))
		}
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

var errWatchEnded = errors.New("the watch has ended")

func followOnce(ctx context.Context, watch func() (jetstream.KeyWatcher, error), see func(jetstream.KeyValueEntry)) error {
	watcher, err := watch()
	if err != nil {
		return err
	}
	return read(ctx, watcher, func(entry jetstream.KeyValueEntry) bool {
		see(entry)
		return true
	})
}

// read calls see with what a watch brings, until see returns false: entries, and
// nil once all have come that were in the bucket at its start. Then it ends the
// watch. It fails with ctx, and when the engine ends the watch before.
func read(ctx context.Context, watcher jetstream.KeyWatcher, see func(jetstream.KeyValueEntry) (more bool)) error {
	defer EndWatch(watcher)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return errWatchEnded
			case !see(entry):
				return nil
			}
		}
	}
}

// watchEnds is how long the client may take to end a watch.
const watchEnds = time.Second

// EndWatch ends the watch of a bucket, and reads what is left in it: the client's
// goroutine ends only when all of that is read. It returns within a second.
func EndWatch(w jetstream.KeyWatcher) {
	_ = w.Stop() // fails only when the connection is gone
	over := time.NewTimer(watchEnds)
	defer over.Stop()
	for {
		select {
		case _, ok := <-w.Updates():
			if !ok {
				return
			}
		case <-over.C: // the client does not close it if the connection ends while it begins the watch again
			return
		}
	}
}
