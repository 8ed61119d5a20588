package quota

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// roster knows which ingress instances may hold open grants: those whose claim
// was renewed within GrantTTL. A claim that lapsed proves nothing: its ingress
// may be cut off with a publish under way. One that was removed does.
type roster struct {
	now   func() time.Time
	freed chan struct{} // says that the leader's claim was removed

	mu       sync.Mutex
	seen     map[int]time.Time
	revision uint64        // of the newest entry seen
	moved    chan struct{} // closed when revision moves
}

func newRoster(now func() time.Time) *roster {
	return &roster{now: now, freed: make(chan struct{}, 1), seen: make(map[int]time.Time), moved: make(chan struct{})}
}

// watch follows the bucket until ctx is done.
func (r *roster) watch(ctx context.Context, claims jetstream.KeyValue) error {
	watcher, err := claims.WatchFiltered(ctx, []string{streams.QuotaClaim, streams.IngressClaims}, jetstream.MetaOnly())
	if err != nil {
		return fmt.Errorf("watch claims: %w", err)
	}
	defer bus.EndWatch(watcher)
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, ok := <-watcher.Updates():
			if !ok {
				if ctx.Err() != nil { // which ends the watch too
					return nil
				}
				return errors.New("watch claims: watch has ended")
			}
			if entry != nil { // nil: these were the ones that are there
				r.see(entry)
			}
		}
	}
}

func (r *roster) see(entry jetstream.KeyValueEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	removed := entry.Operation() != jetstream.KeyValuePut
	switch instance, err := streams.ParseIngressClaim(entry.Key()); {
	case err == nil && removed:
		delete(r.seen, instance)
	case err == nil:
		// One that is told of late, as to an instance that has just begun to
		// watch, was renewed before. When is not known: the engine's clock need
		// not agree with this one.
		r.seen[instance] = r.now()
	case entry.Key() == streams.QuotaClaim && removed:
		select {
		case r.freed <- struct{}{}:
		default:
		}
	}
	r.revision = entry.Revision()
	close(r.moved)
	r.moved = make(chan struct{})
}

// wait returns once everything up to a revision has been seen.
func (r *roster) wait(ctx context.Context, revision uint64) error {
	for {
		r.mu.Lock()
		seen, moved := r.revision, r.moved
		r.mu.Unlock()
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

// instances lists the ingress instances that may hold open grants.
func (r *roster) instances() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	var all []int
	for instance, at := range r.seen {
		if now.Sub(at) >= request.GrantTTL {
			delete(r.seen, instance)
			continue
		}
		all = append(all, instance)
	}
	slices.Sort(all)
	return all
}
