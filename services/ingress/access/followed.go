package access

import (
	"context"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/kv"
)

// followed is a bucket that is kept in memory.
type followed struct {
	loaded chan struct{} // closed once it has been read
	once   sync.Once
}

func newFollowed() followed { return followed{loaded: make(chan struct{})} }

// follow calls apply with every entry of the bucket and with each change, until ctx is done. The engine may end the watch
// now and then. Then all entries are read again: begin is called before that, and at the start.
func (f *followed) follow(ctx context.Context, b *bus.Bus, name string, log *zap.Logger, begin func(), apply func(jetstream.KeyValueEntry)) error {
	bucket, err := kv.Open(ctx, b, name, log)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	watch := func() (jetstream.KeyWatcher, error) {
		begin()
		return bucket.WatchAll(ctx)
	}
	return kv.Follow(ctx, b, name, log, watch, func(entry jetstream.KeyValueEntry) {
		if entry == nil {
			f.once.Do(func() { close(f.loaded) })
			return
		}
		apply(entry)
	})
}

func (f *followed) isLoaded() bool {
	select {
	case <-f.loaded:
		return true
	default:
		return false
	}
}
