package kv

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
)

// Each calls f with what a watch gives until it has given everything that the bucket holds, or f says false. It ends the
// watch.
func Each(ctx context.Context, watcher jetstream.KeyWatcher, f func(jetstream.KeyValueEntry) bool) error {
	defer EndWatch(watcher)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok:
				return errWatchEnded
			case entry == nil || !f(entry):
				return nil
			}
		}
	}
}
