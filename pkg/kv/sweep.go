package kv

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
)

const (
	// sweepEvery is how often the markers of deletions are removed: each look-up passes them. Used up by an account that
	// removes much: its own look-ups pass the markers of that time.
	sweepEvery = time.Hour
	// sweepFirst is how long after a start the first sweep comes.
	sweepFirst = time.Minute
	// markerKept is how long a marker stays for those that watch the bucket and are behind. It hurts nobody: a watch that
	// is behind for longer reads everything again.
	markerKept = time.Hour
	// maxSwept is how many markers are listed at a time. Used up by an account that removes much: the rest comes after
	// them.
	maxSwept = 10_000
)

// Sweep removes old markers from a bucket, once an hour until ctx is done. It is for buckets from which clients can remove
// things as often as they like, and which nobody follows for longer than a look-up takes: a follower must see each marker.
func Sweep(ctx context.Context, b *bus.Bus, bucket string, log *zap.Logger, now func() time.Time) {
	for wait := sweepFirst; clock.Sleep(ctx, wait) == nil; wait = sweepEvery {
		if n, err := RemoveMarkers(ctx, b, bucket, now().Add(-markerKept)); err != nil && ctx.Err() == nil {
			log.Warn("markers of deletions are left", zap.String("bucket", bucket), zap.Error(err))
		} else if n > 0 {
			log.Info("markers of deletions are removed", zap.String("bucket", bucket), zap.Int("markers", n))
		}
	}
}

// RemoveMarkers removes a bucket's markers of deletions from before a time, and says how many.
func RemoveMarkers(ctx context.Context, b *bus.Bus, name string, before time.Time) (n int, err error) {
	stream, err := b.JS.Stream(ctx, "KV_"+name)
	if err != nil {
		return 0, fmt.Errorf("open bucket %s: %w", name, err)
	}
	bucket, err := b.JS.KeyValue(ctx, name)
	if err != nil {
		return 0, fmt.Errorf("open bucket %s: %w", name, err)
	}
	for {
		markers, err := oldMarkers(ctx, bucket, before)
		if err != nil {
			return n, err
		}
		for _, m := range markers {
			if err := removeMarker(ctx, stream, name, m); err != nil {
				return n, fmt.Errorf("remove a marker of %s: %w", name, err)
			}
			n++
		}
		if len(markers) < maxSwept {
			return n, nil
		}
	}
}

// removeMarker removes a marker, and not what has taken its place meanwhile.
func removeMarker(ctx context.Context, stream jetstream.Stream, bucket string, m jetstream.KeyValueEntry) error {
	return stream.Purge(ctx, jetstream.WithPurgeSubject("$KV."+bucket+"."+m.Key()), jetstream.WithPurgeSequence(m.Revision()+1))
}

// oldMarkers lists markers from before a time.
func oldMarkers(ctx context.Context, bucket jetstream.KeyValue, before time.Time) ([]jetstream.KeyValueEntry, error) {
	watcher, err := bucket.WatchAll(ctx, jetstream.MetaOnly())
	if err != nil {
		return nil, fmt.Errorf("look through bucket %s: %w", bucket.Bucket(), err)
	}
	var all []jetstream.KeyValueEntry
	err = Each(ctx, watcher, func(entry jetstream.KeyValueEntry) bool {
		if entry.Operation() != jetstream.KeyValuePut && entry.Created().Before(before) {
			all = append(all, entry)
		}
		return len(all) < maxSwept
	})
	return all, err
}
