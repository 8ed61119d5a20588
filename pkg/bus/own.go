package bus

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/clock"
)

// DeleteOwn deletes a bucket's entry if it holds value, which only its owner
// writes: a write whose answer was lost, or not waited for, may have given it a
// revision that the owner does not know. An entry with another value is left,
// and is no error.
func DeleteOwn(ctx context.Context, bucket jetstream.KeyValue, key string, value []byte) error {
	const again = 20 * time.Millisecond
	for {
		entry, err := bucket.Get(ctx, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			return nil
		case err != nil:
			return err
		case !bytes.Equal(entry.Value(), value):
			return nil
		}
		err = bucket.Delete(ctx, key, jetstream.LastRevision(entry.Revision()))
		if !IsConflict(err) {
			return err
		}
		// The write came in between, or the node that was asked has not heard of it.
		if clock.Sleep(ctx, again) != nil {
			return err
		}
	}
}

// IsConflict says of a bucket's error that another write came first: one code on
// a single engine, another on a cluster.
func IsConflict(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == codeWrongLast || api.ErrorCode == codeWrongLastConstant)
}
