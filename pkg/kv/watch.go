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
	"github.com/trunkline-sms/trunkline/pkg/clock"
)

// openAgain is the pause before a bucket is opened, or watched, again.
const openAgain = time.Second

// Open opens a bucket, and tries again until it can. It fails only when ctx is
// done or the connection is closed.
func Open(ctx context.Context, b *bus.Bus, bucket string, log *zap.Logger) (jetstream.KeyValue, error) {
	for {
		opened, err := b.JS.KeyValue(ctx, bucket)
		switch {
		case err == nil:
			return opened, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case b.Conn.IsClosed():
			return nil, fmt.Errorf("open bucket %s: %w", bucket, err)
		}
		log.Warn("bucket not opened, trying again", zap.String("bucket", bucket), zap.Error(err))
		if err := clock.Sleep(ctx, openAgain); err != nil {
			return nil, err
		}
	}
}

// Follow calls see with each entry of a watch, and with nil once all have come
// that were in the bucket when the watch began. The engine may end a watch, for
// example when its node is lost. Follow then begins a new one, and see gets all
// entries again. It returns nil when ctx is done, and fails when the connection
// is closed.
func Follow(ctx context.Context, b *bus.Bus, bucket string, log *zap.Logger, watch func() (jetstream.KeyWatcher, error), see func(jetstream.KeyValueEntry)) error {
	for {
		err := followOnce(ctx, watch, see)
		switch {
		case ctx.Err() != nil:
			return nil
		case b.Conn.IsClosed():
			return fmt.Errorf("watch bucket %s: %w", bucket, err)
		}
		log.Warn("watching a bucket again", zap.String("bucket", bucket), zap.Error(err))
		_ = clock.Sleep(ctx, openAgain)
	}
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
