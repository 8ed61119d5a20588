package core

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// sweepEvery is how often the markers of what was removed are taken away: each
	// look-up passes them. Used up by an account that removes much: markers
	// of that time are passed over by look-ups of its own.
	sweepEvery = time.Hour
	// sweepFirst is how long a start comes first.
	sweepFirst = time.Minute
	// markerKept is how long one stays for who watches a bucket and is
	// behind. It hurts nobody: who is behind for longer reads anew.
	markerKept = time.Hour
	// maxSwept is how many are taken away at a time. Used up by an account
	// that removes much: the rest is swept the next time.
	maxSwept = 10_000
)

// swept are the buckets from which clients can remove things as often as they
// like, and which nobody follows for longer than a look-up takes. An ingress that
// follows accounts must see each marker; those of sessions have a time to live.
var swept = []string{streams.DevicesBucket, streams.RegistryBucket}

// sweep takes old markers away until ctx is done.
func (c *Core) sweep(ctx context.Context) {
	for wait := sweepFirst; clock.Sleep(ctx, wait) == nil; wait = sweepEvery {
		for _, name := range swept {
			if n, err := c.sweepBucket(ctx, name, c.now().Add(-markerKept)); err != nil && ctx.Err() == nil {
				c.log.Warn("markers of what was removed are left", zap.String("bucket", name), zap.Error(err))
			} else if n > 0 {
				c.log.Info("markers of what was removed are taken away", zap.String("bucket", name), zap.Int("markers", n))
			}
		}
	}
}

// sweepBucket takes away the markers from before a time, and says how many.
func (c *Core) sweepBucket(ctx context.Context, name string, before time.Time) (n int, err error) {
	stream, err := c.bus.JS.Stream(ctx, "KV_"+name)
	if err != nil {
		return 0, fmt.Errorf("open bucket %s: %w", name, err)
	}
	bucket, err := c.bus.JS.KeyValue(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("open bucket %s: %w", name, err)
	}
	for {
		markers, err := oldMarkers(ctx, bucket, before)
		if err != nil {
			return n, err
		}
		for _, m := range markers {
			if err := takeAway(ctx, stream, name, m); err != nil {
				return n, fmt.Errorf("take away a marker of %s: %w", name, err)
			}
			n++
		}
		if len(markers) < maxSwept {
			return n, nil
		}
	}
}

// takeAway removes a marker, and not what has taken its place meanwhile.
func takeAway(ctx context.Context, stream jetstream.Stream, bucket string, m jetstream.KeyValueEntry) error {
	return stream.Purge(ctx, jetstream.WithPurgeSubject("$KV."+bucket+"."+m.Key()), jetstream.WithPurgeSequence(m.Revision()+1))
}

// oldMarkers lists markers from before a time.
func oldMarkers(ctx context.Context, bucket jetstream.KeyValue, before time.Time) ([]jetstream.KeyValueEntry, error) {
	watcher, err := bucket.WatchAll(ctx, jetstream.MetaOnly())
	if err != nil {
		return nil, fmt.Errorf("look through bucket %s: %w", bucket.Bucket(), err)
	}
	var all []jetstream.KeyValueEntry
	err = eachEntry(ctx, watcher, func(entry jetstream.KeyValueEntry) bool {
		if entry.Operation() != jetstream.KeyValuePut && entry.Created().Before(before) {
			all = append(all, entry)
		}
		return len(all) < maxSwept
	})
	return all, err
}

// eachEntry calls f with what a bucket holds now, until f says false, and ends
// the watch.
func eachEntry(ctx context.Context, watcher jetstream.KeyWatcher, f func(jetstream.KeyValueEntry) bool) error {
	defer kv.EndWatch(watcher)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return errKept
			case entry == nil || !f(entry):
				return nil
			}
		}
	}
}
