// Package kv is what services share in the use of buckets: to open one, to watch one, and to hold a claim in one.
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

// openAgain is the pause before a bucket that did not open is tried again, and
// before one is watched again.
const openAgain = time.Second

// Open opens a bucket, and tries until it can. It fails with ctx, and when the
// connection is closed.
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

// Follow gives see what a watch of a bucket brings, and nil once all has come
// that was there when the watch began. The engine ends a watch now and then, as
// when its node is lost: it begins again then, with all that is there. It
// returns nil when ctx is done, and fails when the connection is closed.
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
	defer EndWatch(watcher)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, ok := <-watcher.Updates():
			if !ok {
				return errWatchEnded
			}
			see(entry)
		}
	}
}

// watchEnds is how long the client may take to end a watch.
const watchEnds = time.Second

// EndWatch ends the watch of a bucket, and reads what has come and was not read:
// the client's goroutine waits until it is read. It returns within a second.
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
		case <-over.C: // the client does not always close it: not when the connection ends while it begins the watch again
			return
		}
	}
}
