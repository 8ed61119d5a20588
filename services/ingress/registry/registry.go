// Package registry keeps what senders store for their phones: webhooks and settings.
package registry

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/streams"
)

// Options are what a Registry is made of.
type Options struct {
	Bus *bus.Bus
	Log *zap.Logger
	Now func() time.Time
}

// Registry keeps the webhooks and settings of all accounts. All its errors are faults; those of the engine are
// Unavailable.
type Registry struct {
	bus    *bus.Bus
	log    *zap.Logger
	now    func() time.Time
	bucket kv.Bucket
}

// New makes a Registry.
func New(o Options) *Registry {
	return &Registry{bus: o.Bus, log: o.Log, now: o.Now, bucket: kv.Bucket{Bus: o.Bus, Name: streams.RegistryBucket}}
}

// Run sweeps the registry's bucket until ctx is done.
func (r *Registry) Run(ctx context.Context) error {
	kv.Sweep(ctx, r.bus, streams.RegistryBucket, r.log, r.now)
	return nil
}
