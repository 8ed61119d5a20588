package streams

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Change makes a stream or bucket that exists be as defined, for a Difference
// that Ensure has told of. It is used meanwhile: more replicas are filled
// behind its back.
func Change(ctx context.Context, js jetstream.JetStream, d Deployment, stream string) error {
	for _, shard := range d.Shards.All() {
		switch stream {
		case EnqueueStream(shard):
			return update(ctx, js, d.Enqueue(shard))
		case StatusStream(shard):
			return update(ctx, js, d.Status(shard))
		}
	}
	for _, bucket := range []jetstream.KeyValueConfig{d.Accounts(), d.Devices(), d.Claims()} {
		if stream == bucketPrefix+bucket.Bucket {
			if _, err := js.UpdateKeyValue(ctx, bucket); err != nil {
				return fmt.Errorf("change bucket %s: %w", bucket.Bucket, err)
			}
			return nil
		}
	}
	have, err := js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", stream, err)
	}
	config := have.CachedInfo().Config
	config.Replicas = d.Replicas
	return update(ctx, js, config)
}

func update(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	if _, err := js.UpdateStream(ctx, want); err != nil {
		return fmt.Errorf("change stream %s: %w", want.Name, err)
	}
	return nil
}
