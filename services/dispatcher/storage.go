package dispatcher

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// Limit: ingresses learn every 1 s which accounts store much. Beyond it: what an account stores in this time, and
	// until that is folded, may be more than it may store.
	// Used up by: an account that fills the stream fast. Hurts: nobody, as long as others leave a tenth of the room.
	// Test: TestSharesOfStreams.
	broadcastEvery = time.Second
	// Limit: ingresses are told of 1,000 accounts of a shard, those that store most. Beyond it: the others store on
	// until the stream is full.
	// Used up by: nobody while a stream has room: by default each of them stores twice what is free. Hurts: nobody more
	// than the full stream does. Test: TestBroadcastIsBounded.
	maxBroadcast = 1000
	// repeatEmpty is how often ingresses are told that no account stores much any
	// more: a broadcast may be lost.
	repeatEmpty = 5
)

// storage watches how much of the shard's streams each account stores.
type storage struct {
	*shard
	metrics *metrics
	most    int           // percent that one account may store of what the others leave
	folded  chan struct{} // has a token when something was folded
}

func newStorage(s *shard, m *metrics, most int) *storage {
	return &storage{shard: s, metrics: m, most: most, folded: make(chan struct{}, 1)}
}

// nearly is the percentage at which the log warns of an account: three quarters of
// what it may store.
func (s *storage) nearly() int { return s.most * 3 / 4 }

// changed says that something was folded.
func (s *storage) changed() {
	select {
	case s.folded <- struct{}{}:
	default:
	}
}

// run tells all ingresses which accounts store nearly as much of the shard's streams
// as they may, or more, and logs them, until ctx is done. It rests while no account
// does and nothing is stored.
func (s *storage) run(ctx context.Context) error {
	known := map[streams.AccountID]request.Storage{}
	for left := repeatEmpty; ; {
		if left == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-s.folded:
			}
		}
		if clock.Sleep(ctx, broadcastEvery) != nil {
			return nil
		}
		if !s.follows() {
			left = repeatEmpty
			continue // what is not folded is not known
		}
		all, err := s.measure(ctx)
		if err != nil {
			left = repeatEmpty
			continue // the streams cannot be asked now: ingresses go by the last broadcast
		}
		if left = max(left-1, 0); len(all) > 0 {
			left = repeatEmpty
		}
		known = s.note(known, all)
		if data, err := json.Marshal(request.StorageUse{Shard: s.number, Accounts: all}); err == nil {
			_ = s.deps.Bus.Conn.Publish(request.IngressStorage, data)
		}
	}
}

// note logs the accounts that did not store so much when it was called last, and
// counts them all.
func (s *storage) note(before map[streams.AccountID]request.Storage, all []request.Storage) map[streams.AccountID]request.Storage {
	now := make(map[streams.AccountID]request.Storage, len(all))
	over := 0
	for _, one := range all {
		now[one.Account] = one
		last, known := before[one.Account]
		switch {
		case one.Over():
			over++
			if !last.Over() {
				s.deps.Log.Warn("an account has stored all that it may in a stream: its messages are rejected", zap.Stringer("account", one.Account),
					zap.Stringer("shard", s.number), zap.Int("enqueue_percent", one.Enqueue), zap.Int("status_percent", one.Status))
			}
		case !known:
			s.deps.Log.Warn("an account has stored nearly all that it may in a stream", zap.Stringer("account", one.Account),
				zap.Stringer("shard", s.number), zap.Int("enqueue_percent", one.Enqueue), zap.Int("status_percent", one.Status))
		}
	}
	s.metrics.nearShare.WithLabelValues(s.number.String()).Set(float64(len(all)))
	s.metrics.overShare.WithLabelValues(s.number.String()).Set(float64(over))
	return now
}

// measure lists the accounts that store nearly their share or more, those that
// store most first. While the streams have room for all it looks at none of them.
func (s *storage) measure(ctx context.Context) ([]request.Storage, error) {
	enqueueFree, looksAtEnqueue, err := s.free(ctx, s.enqueue)
	if err != nil {
		return nil, err
	}
	statusFree, looksAtStatus, err := s.free(ctx, s.status)
	if err != nil {
		return nil, err
	}
	if s.most >= 100 || !looksAtEnqueue && !looksAtStatus {
		return nil, nil
	}
	found := map[streams.AccountID]request.Storage{}
	err = s.view(func(v state.View) error {
		return v.EachStored(func(a streams.AccountID, status bool, bytes uint64) {
			free, looks := enqueueFree, looksAtEnqueue
			if status {
				free, looks = statusFree, looksAtStatus
			}
			percent := percentOf(bytes, free)
			if !looks || percent < s.nearly() {
				return
			}
			one := found[a]
			one.Account = a
			if status {
				one.Status, one.StatusOver = percent, percent >= s.most
			} else {
				one.Enqueue, one.EnqueueOver = percent, percent >= s.most
			}
			found[a] = one
		})
	})
	if err != nil {
		return nil, fmt.Errorf("look through stored bytes: %w", err)
	}
	return most(found), nil
}

// free is how many bytes a stream has room for, and whether so few that an account
// may store nearly its share.
func (s *storage) free(ctx context.Context, stream string) (free uint64, few bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, broadcastEvery)
	defer cancel()
	got, err := s.deps.Bus.JS.Stream(ctx, stream)
	if err != nil {
		return 0, false, err
	}
	info := got.CachedInfo()
	if info.Config.MaxBytes <= 0 {
		return 0, false, nil
	}
	limit := uint64(info.Config.MaxBytes)
	free = limit - min(info.State.Bytes, limit)
	return free, percentOf(info.State.Bytes, free) >= s.nearly(), nil
}

// most lists those that store most, first.
func most(found map[streams.AccountID]request.Storage) []request.Storage {
	all := slices.SortedFunc(maps.Values(found), func(a, b request.Storage) int {
		return cmp.Or(cmp.Compare(max(b.Enqueue, b.Status), max(a.Enqueue, a.Status)), cmp.Compare(a.Account, b.Account))
	})
	return all[:min(len(all), maxBroadcast)]
}

// percentOf is how large a part the stored bytes are of those and the free room.
func percentOf(stored, free uint64) int {
	if stored+free == 0 {
		return 0
	}
	return int(stored * 100 / (stored + free))
}
