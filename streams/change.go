package streams

import (
	"context"
	"errors"
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

// EndAge makes ENQUEUE and STATUS of deployments of earlier versions keep what
// the engine would drop by its machine's clock: see Retention. It changes
// nothing else, and streams that are missing are left to Ensure.
func EndAge(ctx context.Context, js jetstream.JetStream, shards Shards) error {
	for _, shard := range shards.All() {
		for _, name := range []string{EnqueueStream(shard), StatusStream(shard)} {
			stream, err := js.Stream(ctx, name)
			switch {
			case errors.Is(err, jetstream.ErrStreamNotFound):
				continue
			case err != nil:
				return fmt.Errorf("look up stream %s: %w", name, err)
			}
			config := stream.CachedInfo().Config
			if config.MaxAge == 0 {
				continue
			}
			config.MaxAge = 0
			if err := update(ctx, js, config); err != nil {
				return err
			}
		}
	}
	return nil
}

func update(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	if _, err := js.UpdateStream(ctx, want); err != nil {
		return fmt.Errorf("change stream %s: %w", want.Name, err)
	}
	return nil
}
