package quota

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// ingresses knows which ingress instances may have open grants: those whose claim was
// renewed within GrantTTL. That a claim has lapsed proves nothing: its ingress may be
// cut off with a publish under way. But an ingress removes its claim only when it has
// stopped, and has no grant then.
type ingresses struct {
	now   func() time.Time
	freed chan struct{} // gets a token when the leader's claim is removed

	mu       sync.Mutex
	seen     map[int]time.Time
	revision uint64        // of the newest entry seen
	moved    chan struct{} // closed when revision moves
}

func newIngresses(now func() time.Time) *ingresses {
	return &ingresses{now: now, freed: make(chan struct{}, 1), seen: make(map[int]time.Time), moved: make(chan struct{})}
}

// follow keeps up with the bucket until ctx is done.
func (i *ingresses) follow(ctx context.Context, b *bus.Bus, claims jetstream.KeyValue, log *zap.Logger) error {
	return kv.Follow(ctx, b, claims.Bucket(), log, func() (jetstream.KeyWatcher, error) {
		return claims.WatchFiltered(ctx, []string{streams.QuotaClaim, streams.IngressClaims}, jetstream.MetaOnly())
	}, i.see)
}

func (i *ingresses) see(entry jetstream.KeyValueEntry) {
	if entry == nil { // all entries from before the watch have come
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	removed := entry.Operation() != jetstream.KeyValuePut
	switch instance, err := streams.ParseIngressClaim(entry.Key()); {
	case err == nil && removed:
		delete(i.seen, instance)
	case err == nil:
		// The entry may be older, as when this process has just begun to watch. How
		// old is not known, since the engine's clock may differ from this one. Now is
		// the safe answer.
		i.seen[instance] = i.now()
	case entry.Key() == streams.QuotaClaim && removed:
		select {
		case i.freed <- struct{}{}:
		default:
		}
	}
	i.revision = entry.Revision()
	close(i.moved)
	i.moved = make(chan struct{})
}

// wait returns once all entries up to a revision have been seen.
func (i *ingresses) wait(ctx context.Context, revision uint64) error {
	for {
		i.mu.Lock()
		seen, moved := i.revision, i.moved
		i.mu.Unlock()
		if seen >= revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// instances lists the ingress instances that may have open grants.
func (i *ingresses) instances() []int {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.now()
	var all []int
	for instance, at := range i.seen {
		if now.Sub(at) >= request.GrantTTL {
			delete(i.seen, instance)
			continue
		}
		all = append(all, instance)
	}
	slices.Sort(all)
	return all
}
