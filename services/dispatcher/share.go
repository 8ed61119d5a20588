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
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// shareEvery is how often ingresses are told which accounts hold much. An
	// account may store so much beyond its share as it sends in this time; it
	// hurts nobody else.
	shareEvery = time.Second
	// maxShares is the most accounts that are told of, those that hold most. More
	// there are only in a stream that is full for everybody. Used up by that
	// many accounts, in a stream that is full for everybody.
	maxShares = 1000
)

// nearShare is the percentage from which on an account is warned of: three
// quarters of what it may hold.
func (c Config) nearShare() int { return c.AccountShare * 3 / 4 }

// tellAgain is how often it is told that no account holds much any more: what is
// told may be lost.
const tellAgain = 5

// share tells all ingresses which accounts hold nearly their share of the
// shard's streams or more, and says so in the log, until ctx is done. While none
// does and nothing is stored it rests.
func (s *shard) share(ctx context.Context) error {
	told := map[streams.AccountID]request.Share{}
	for left := tellAgain; ; {
		if left == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-s.stored:
			}
		}
		if clock.Sleep(ctx, shareEvery) != nil {
			return nil
		}
		if !s.settled() {
			left = tellAgain
			continue // what is not folded is not known
		}
		all, err := s.shares(ctx)
		if err != nil {
			left = tellAgain
			continue // the streams cannot be asked now; what was told stands
		}
		if left = max(left-1, 0); len(all) > 0 {
			left = tellAgain
		}
		told = s.noteShares(told, all)
		if data, err := json.Marshal(request.Shares{Shard: s.number, Accounts: all}); err == nil {
			_ = s.deps.Bus.Conn.Publish(request.IngressShares, data)
		}
	}
}

// settled says that the projection follows the streams.
func (s *shard) settled() bool {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	return s.file.Err() == nil && s.file.Ready(now) == nil
}

// noteShares logs what is new, and counts.
func (s *shard) noteShares(told map[streams.AccountID]request.Share, all []request.Share) map[streams.AccountID]request.Share {
	now := make(map[streams.AccountID]request.Share, len(all))
	over := 0
	for _, one := range all {
		now[one.Account] = one
		before, known := told[one.Account]
		switch {
		case one.Over():
			over++
			if !before.Over() {
				s.deps.Log.Warn("an account holds its share of a stream: what it wants to store is refused", zap.Stringer("account", one.Account),
					zap.Stringer("shard", s.number), zap.Int("enqueue_percent", one.Enqueue), zap.Int("status_percent", one.Status))
			}
		case !known:
			s.deps.Log.Warn("an account comes near its share of a stream", zap.Stringer("account", one.Account),
				zap.Stringer("shard", s.number), zap.Int("enqueue_percent", one.Enqueue), zap.Int("status_percent", one.Status))
		}
	}
	s.metrics.nearShare.WithLabelValues(s.number.String()).Set(float64(len(all)))
	s.metrics.overShare.WithLabelValues(s.number.String()).Set(float64(over))
	return now
}

// shares lists the accounts that hold nearly their share or more, those that
// hold most first. While the streams have room for all it looks at none of them.
func (s *shard) shares(ctx context.Context) ([]request.Share, error) {
	var free [2]uint64
	var looks [2]bool
	for stream, name := range []string{heldEnqueue: s.enqueue, heldStatus: s.status} {
		ctx, cancel := context.WithTimeout(ctx, shareEvery)
		got, err := s.deps.Bus.JS.Stream(ctx, name)
		cancel()
		if err != nil {
			return nil, err
		}
		info := got.CachedInfo()
		if info.Config.MaxBytes <= 0 {
			continue
		}
		limit := uint64(info.Config.MaxBytes)
		free[stream] = limit - min(info.State.Bytes, limit)
		looks[stream] = percentOf(info.State.Bytes, free[stream]) >= s.cfg.nearShare()
	}
	if s.cfg.AccountShare >= 100 || !looks[heldEnqueue] && !looks[heldStatus] {
		return nil, nil
	}
	found := map[streams.AccountID]request.Share{}
	err := s.view(func(v view) (err error) {
		eachKey(v.bucket(heldBucket), nil, func(key, value []byte) bool {
			a, stream := streams.AccountID(id(key, 0)), key[8]
			if !looks[stream] {
				return true
			}
			var all days
			if all, err = decodeDays(value); err != nil {
				return false
			}
			percent := percentOf(all.sum(), free[stream])
			if percent < s.cfg.nearShare() {
				return true
			}
			one := found[a]
			one.Account = a
			if stream == heldEnqueue {
				one.Enqueue, one.EnqueueOver = percent, percent >= s.cfg.AccountShare
			} else {
				one.Status, one.StatusOver = percent, percent >= s.cfg.AccountShare
			}
			found[a] = one
			return true
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look through shares: %w", err)
	}
	return most(found), nil
}

// most lists those that hold most, first.
func most(found map[streams.AccountID]request.Share) []request.Share {
	all := slices.SortedFunc(maps.Values(found), func(a, b request.Share) int {
		return cmp.Or(cmp.Compare(max(b.Enqueue, b.Status), max(a.Enqueue, a.Status)), cmp.Compare(a.Account, b.Account))
	})
	return all[:min(len(all), maxShares)]
}

// percentOf is how much of what it and the free room make together is held.
func percentOf(held, free uint64) int {
	if held+free == 0 {
		return 0
	}
	return int(held * 100 / (held + free))
}
