package kv

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
)

// Each calls f with each entry of a watch, until all that were in the bucket at its start have come or f returns false.
// Then it ends the watch. It fails with ctx, and when the engine ends the watch before.
func Each(ctx context.Context, watcher jetstream.KeyWatcher, f func(jetstream.KeyValueEntry) bool) error {
	return read(ctx, watcher, func(entry jetstream.KeyValueEntry) bool { return entry != nil && f(entry) })
}
