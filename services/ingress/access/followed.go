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

// follow calls apply with everything in the bucket and with what changes, until ctx is done. The engine may end that now
// and then: begin is called whenever everything is about to be read, again.
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
