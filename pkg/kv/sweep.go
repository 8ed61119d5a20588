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
	// A deletion leaves a marker, which each look-up has to pass.
	//
	// Limit: markers of deletions are swept every 1 h.
	// Used up by: an account that removes much. Hurts: that account alone: its look-ups pass the markers of that time.
	// Test: TestRemoveMarkers.
	sweepEvery = time.Hour
	// sweepFirst is how long after a start the first sweep comes.
	sweepFirst = time.Minute
	// It stays for watches of the bucket that are behind.
	//
	// Limit: the marker of a removed device or webhook stays for 1 h, and until the next sweep. Beyond it: it is
	// removed; until then look-ups of its account pass it.
	// Used up by: nobody. Hurts: nobody: a watch that is behind for longer reads everything again. Test:
	// TestRemoveMarkers.
	markerKept = time.Hour
	// Limit: a sweep lists 10,000 markers at a time. Beyond it: the rest comes after them.
	// Used up by: accounts that remove much. Hurts: nobody. Test: TestRemoveMarkers.
	maxSwept = 10_000
)

// Sweep removes old markers from a bucket, once an hour until ctx is done. Use it for buckets from which clients can
// remove as much as they like, and only if no process keeps up with the bucket by a watch: that must see each marker.
func Sweep(ctx context.Context, b *bus.Bus, bucket string, log *zap.Logger, now func() time.Time) {
	for wait := sweepFirst; clock.Sleep(ctx, wait) == nil; wait = sweepEvery {
		if n, err := RemoveMarkers(ctx, b, bucket, now().Add(-markerKept)); err != nil && ctx.Err() == nil {
			log.Warn("markers of deletions are left", zap.String("bucket", bucket), zap.Error(err))
		} else if n > 0 {
			log.Info("markers of deletions are removed", zap.String("bucket", bucket), zap.Int("markers", n))
		}
	}
}

// RemoveMarkers removes a bucket's markers of deletions from before a time, and returns how many it has removed.
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

// removeMarker removes a marker, but not a value that has replaced it meanwhile.
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
