package streams

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Difference says how a stream or bucket that exists differs from its
// definition. Ensure reports it and changes nothing.
type Difference struct {
	Stream string
	Fields []string // "max_age: 35d, want 7d"
}

// Error names the stream and each field.
func (d *Difference) Error() string {
	return fmt.Sprintf("stream %s differs from its definition: %s", d.Stream, strings.Join(d.Fields, "; "))
}

// Missing says that a stream is gone from a deployment that has begun: it was
// deleted, or the data directory or its encryption key is the wrong one.
// Creating it again would destroy what may still be there.
type Missing struct{ Stream string }

// Error says what is missing and what not to do.
func (m *Missing) Error() string {
	return "stream " + m.Stream + " is missing although this deployment has begun: restore the data directory, nothing was created"
}

// How the engine names the streams of buckets and object stores.
const (
	bucketPrefix = "KV_"
	objectPrefix = "OBJ_"
)

// Ensure makes a deployment's streams and buckets be there as defined. What
// exists is compared and never changed: every Difference is returned. What does
// not exist is created if create is true, which is right only in a deployment
// that has not begun; else it is Missing.
func Ensure(ctx context.Context, js jetstream.JetStream, d Deployment, create bool) error {
	if d.Shards < 1 || d.Shards > MaxShards {
		return fmt.Errorf("ensure streams: %d shards, want 1 to %d", d.Shards, MaxShards)
	}
	if begun, err := FindShards(ctx, js); err == nil && begun != d.Shards {
		return fmt.Errorf("ensure streams: this deployment began with %d shards, which cannot become %d", begun, d.Shards)
	}
	// It says how many shards there are: without it no other stream is made.
	err := ensureStream(ctx, js, d.Enqueue(0), create)
	var difference *Difference
	if create && err != nil && !errors.As(err, &difference) {
		return err
	}
	problems := []error{err}
	for _, shard := range d.Shards.All() {
		if shard > 0 {
			problems = append(problems, ensureStream(ctx, js, d.Enqueue(shard), create))
		}
		problems = append(problems, ensureStream(ctx, js, d.Status(shard), create))
	}
	for _, bucket := range []jetstream.KeyValueConfig{d.Accounts(), d.Devices(), d.Claims()} {
		problems = append(problems, ensureBucket(ctx, js, bucket, create))
	}
	problems = append(problems, ensureReleases(ctx, js, d, create)...)
	problems = append(problems, ensureRegistry(ctx, js, d, create)...)
	return errors.Join(problems...)
}

// EnsureReleases is the part of Ensure that deployments of the first version
// lack: there it is right to create in one that has begun.
func EnsureReleases(ctx context.Context, js jetstream.JetStream, d Deployment, create bool) error {
	return errors.Join(ensureReleases(ctx, js, d, create)...)
}

func ensureReleases(ctx context.Context, js jetstream.JetStream, d Deployment, create bool) []error {
	return []error{ensureStream(ctx, js, d.Release(), create), ensureApks(ctx, js, d.Apks(), create)}
}

// EnsureRegistry is the part of Ensure that deployments of the second version
// lack.
func EnsureRegistry(ctx context.Context, js jetstream.JetStream, d Deployment, create bool) error {
	return errors.Join(ensureRegistry(ctx, js, d, create)...)
}

func ensureRegistry(ctx context.Context, js jetstream.JetStream, d Deployment, create bool) []error {
	return []error{ensureBucket(ctx, js, d.Registry(), create), ensureBucket(ctx, js, d.Sessions(), create)}
}

// Names lists the streams of a deployment, those of its buckets too.
func (d Deployment) Names() []string {
	names := []string{ReleaseStream, objectPrefix + ApksBucket}
	for _, shard := range d.Shards.All() {
		names = append(names, EnqueueStream(shard), StatusStream(shard))
	}
	for _, bucket := range []string{AccountsBucket, DevicesBucket, ClaimsBucket, RegistryBucket, SessionsBucket} {
		names = append(names, bucketPrefix+bucket)
	}
	return names
}

// Used says whether anything was ever stored in the streams of a deployment
// that are there. In one that was not used, what is missing was never made.
func Used(ctx context.Context, js jetstream.JetStream, d Deployment) (bool, error) {
	for _, name := range d.Names() {
		stream, err := js.Stream(ctx, name)
		switch {
		case errors.Is(err, jetstream.ErrStreamNotFound):
		case err != nil:
			return false, fmt.Errorf("look up stream %s: %w", name, err)
		case stream.CachedInfo().State.LastSeq > 0:
			return true, nil
		}
	}
	return false, nil
}

// FindShards reads the number of shards that the deployment began with.
func FindShards(ctx context.Context, js jetstream.JetStream) (Shards, error) {
	stream, err := js.Stream(ctx, EnqueueStream(0))
	if err != nil {
		return 0, fmt.Errorf("find shards: %w", err)
	}
	n, err := strconv.Atoi(stream.CachedInfo().Config.Metadata[shardsKey])
	if err != nil || n < 1 || n > MaxShards {
		return 0, fmt.Errorf("find shards: stream %s does not say how many there are", EnqueueStream(0))
	}
	return Shards(n), nil
}

func ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, create bool) error {
	stream, err := js.Stream(ctx, want.Name)
	switch {
	case err == nil:
		return compare(stream.CachedInfo().Config, want)
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("look up stream %s: %w", want.Name, err)
	case !create:
		return &Missing{want.Name}
	}
	if _, err := js.CreateStream(ctx, want); err != nil {
		return fmt.Errorf("create stream %s: %w", want.Name, err)
	}
	return nil
}

func ensureBucket(ctx context.Context, js jetstream.JetStream, want jetstream.KeyValueConfig, create bool) error {
	bucket, err := js.KeyValue(ctx, want.Bucket)
	switch {
	case err == nil:
		status, err := bucket.Status(ctx)
		if err != nil {
			return fmt.Errorf("look up bucket %s: %w", want.Bucket, err)
		}
		have := status.Config()
		if have.History != want.History || have.TTL != want.TTL || have.Storage != want.Storage || have.Replicas != want.Replicas {
			return &Difference{bucketPrefix + want.Bucket, []string{fmt.Sprintf(
				"history %d ttl %v storage %v replicas %d, want history %d ttl %v storage %v replicas %d",
				have.History, have.TTL, have.Storage, have.Replicas, want.History, want.TTL, want.Storage, want.Replicas)}}
		}
		return nil
	case !errors.Is(err, jetstream.ErrBucketNotFound):
		return fmt.Errorf("look up bucket %s: %w", want.Bucket, err)
	case !create:
		return &Missing{bucketPrefix + want.Bucket}
	}
	if _, err := js.CreateKeyValue(ctx, want); err != nil {
		return fmt.Errorf("create bucket %s: %w", want.Bucket, err)
	}
	return nil
}

func ensureApks(ctx context.Context, js jetstream.JetStream, want jetstream.ObjectStoreConfig, create bool) error {
	const name = objectPrefix + ApksBucket
	stream, err := js.Stream(ctx, name)
	switch {
	case err == nil:
		have := stream.CachedInfo().Config
		if have.MaxBytes != want.MaxBytes || have.MaxAge != want.TTL || have.Storage != want.Storage || have.Replicas != want.Replicas {
			return &Difference{name, []string{fmt.Sprintf(
				"max_bytes %d ttl %v storage %v replicas %d, want max_bytes %d ttl %v storage %v replicas %d",
				have.MaxBytes, have.MaxAge, have.Storage, have.Replicas, want.MaxBytes, want.TTL, want.Storage, want.Replicas)}}
		}
		return nil
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("look up object store %s: %w", want.Bucket, err)
	case !create:
		return &Missing{name}
	}
	if _, err := js.CreateObjectStore(ctx, want); err != nil {
		return fmt.Errorf("create object store %s: %w", want.Bucket, err)
	}
	return nil
}

// compare reads both sides as the JSON that the engine's API speaks, so that a
// setting this code has never heard of is noticed too.
func compare(have, want jetstream.StreamConfig) error {
	h, w := fields(have), fields(want)
	var differing []string
	for name := range h {
		if !reflect.DeepEqual(h[name], w[name]) {
			differing = append(differing, fmt.Sprintf("%s: %v, want %v", name, h[name], w[name]))
		}
	}
	for name := range w {
		if _, ok := h[name]; !ok {
			differing = append(differing, fmt.Sprintf("%s: none, want %v", name, w[name]))
		}
	}
	if len(differing) == 0 {
		return nil
	}
	slices.Sort(differing)
	return &Difference{want.Name, differing}
}

func fields(c jetstream.StreamConfig) map[string]any {
	// The engine writes its own version beside our metadata.
	ours := map[string]string{}
	for key, value := range c.Metadata {
		if !strings.HasPrefix(key, "_nats.") {
			ours[key] = value
		}
	}
	c.Metadata = ours
	data, _ := json.Marshal(c)
	all := map[string]any{}
	_ = json.Unmarshal(data, &all)
	return all
}
