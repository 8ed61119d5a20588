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

// deleteOwn deletes an entry if it has value, which only its owner writes. It
// goes by the value and not by a revision: a write of the owner whose answer was
// lost may have given the entry a revision that the owner does not know. An
// entry with another value is left, and is no error.
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
			return err // a write came in between, or the node that answered does not have the last one yet
		}
		return retry.Stop(err)
	})
}
