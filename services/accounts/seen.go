package accounts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// AwaitSeen waits until every registered ingress acts on the accounts as of a
// revision, or ctx is done. It gives the instances that have not said so.
func (a *Accounts) AwaitSeen(ctx context.Context, revision uint64) (missing []int, err error) {
	instances, err := a.instances(ctx)
	if err != nil {
		return nil, err
	}
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
	)
	for _, instance := range instances {
		wait.Go(func() {
			_, err := bus.Call[request.Saw](ctx, a.bus, request.IngressSeen(instance), request.Seen{Revision: revision})
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, instance)
			}
		})
	}
	wait.Wait()
	slices.Sort(missing)
	return missing, nil
}

// instances lists the ingress instances that hold a number.
func (a *Accounts) instances(ctx context.Context) ([]int, error) {
	kv, err := a.bus.JS.KeyValue(ctx, streams.ClaimsBucket)
	if err != nil {
		return nil, fmt.Errorf("open claims: %w", err)
	}
	lister, err := kv.ListKeysFiltered(ctx, streams.IngressClaims)
	if errors.Is(err, jetstream.ErrNoKeysFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list claims: %w", err)
	}
	defer func() { _ = lister.Stop() }()
	var instances []int
	for key := range lister.Keys() {
		instance, err := streams.ParseIngressClaim(key)
		if err != nil {
			return nil, fmt.Errorf("list claims: %w", err)
		}
		instances = append(instances, instance)
	}
	return instances, nil
}
