package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/kv"
)

// values reads all values of the keys that match, in no order.
func values[T any](ctx context.Context, bucket jetstream.KeyValue, keys string) ([]T, error) {
	watcher, err := bucket.Watch(ctx, keys, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer kv.EndWatch(watcher)
	all := []T{}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case entry, open := <-watcher.Updates():
			if !open {
				return nil, errors.New("the connection was lost")
			}
			if entry == nil { // all that was there has come
				return all, nil
			}
			value, err := decode[T](entry)
			if err != nil {
				return nil, err
			}
			all = append(all, value)
		}
	}
}

func decode[T any](entry jetstream.KeyValueEntry) (T, error) {
	var value T
	if err := json.Unmarshal(entry.Value(), &value); err != nil {
		return value, fmt.Errorf("decode %s: %w", entry.Key(), err)
	}
	return value, nil
}
