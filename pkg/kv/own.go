package kv

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/retry"
)

// deleteOwn deletes a bucket's entry if it holds value, which only its owner
// writes: a write whose answer was lost, or not waited for, may have given it a
// revision that the owner does not know. An entry with another value is left,
// and is no error.
func deleteOwn(ctx context.Context, bucket jetstream.KeyValue, key string, value []byte) error {
	const again = 20 * time.Millisecond
	return retry.Do(ctx, again, nil, func() error {
		entry, err := bucket.Get(ctx, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			return nil
		case err != nil:
			return retry.Stop(err)
		case !bytes.Equal(entry.Value(), value):
			return nil
		}
		err = bucket.Delete(ctx, key, jetstream.LastRevision(entry.Revision()))
		if bus.IsConflict(err) {
			return err // the write came in between, or the node that was asked has not heard of it
		}
		return retry.Stop(err)
	})
}
