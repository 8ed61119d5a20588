package core

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/kv"
)

// followed is a bucket, or a part of one, that is kept in memory.
type followed struct {
	loaded chan struct{} // closed once it has been read
	once   sync.Once
}

func newFollowed() followed { return followed{loaded: make(chan struct{})} }

// follow reads what watch gives and keeps up with it until ctx is done.
func (f *followed) follow(ctx context.Context, what string, watch func() (jetstream.KeyWatcher, error), apply func(jetstream.KeyValueEntry)) error {
	watcher, err := watch()
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("watch %s: %w", what, err)
	}
	defer kv.EndWatch(watcher)
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, ok := <-watcher.Updates():
			switch {
			case !ok && ctx.Err() != nil:
				return nil
			case !ok:
				return errors.New("watch " + what + ": the watch has ended")
			case entry == nil:
				f.once.Do(func() { close(f.loaded) })
			default:
				apply(entry)
			}
		}
	}
}
