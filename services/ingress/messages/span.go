package messages

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// horizonFor is how long a horizon is remembered here. If it has moved since, dispatchers know which messages are gone.
const horizonFor = 10 * time.Minute

// span is the range in which the ids of existing messages lie: none is newer than the newest in ENQUEUE, none is behind
// the horizon. It does not depend on the time now, since ids come from clocks that may have been wrong.
type span struct {
	newest atomic.Uint64 // the newest id known to be in ENQUEUE

	mu       sync.Mutex
	horizons map[streams.Shard]horizon
}

// horizon is a shard's last horizon event.
type horizon struct {
	oldest streams.MessageID
	read   time.Time
}

func newSpan() *span { return &span{horizons: map[streams.Shard]horizon{}} }

// note notes a message that is in ENQUEUE.
func (s *span) note(id streams.MessageID) {
	for {
		newest := s.newest.Load()
		if uint64(id) <= newest || s.newest.CompareAndSwap(newest, uint64(id)) {
			return
		}
	}
}

// absent names the messages of a report that the account surely does not have: those behind the horizon, and those that
// are newer than all that is known here and that a dispatcher does not know either. Without an answer nothing is
// absent.
func (m *Messages) absent(ctx context.Context, account streams.AccountID, items []Item) map[streams.MessageID]bool {
	var absent map[streams.MessageID]bool
	var newer []streams.MessageID
	shard := m.shards.Of(account)
	oldest, newest := m.oldest(ctx, shard), m.ids.newest.Load()
	for _, item := range items {
		id, err := streams.ParseMessageID(item.ID)
		switch {
		case err != nil:
		case id < oldest:
			absent = with(absent, id)
		case uint64(id) > newest:
			newer = append(newer, id)
		}
	}
	if len(newer) == 0 {
		return absent
	}
	ctx, cancel := context.WithTimeout(ctx, changedWithin)
	defer cancel()
	// Another ingress may have accepted these messages. A dispatcher that looks for one has folded everything of the
	// account that was stored before. So it is asked for the newest of them first, and then knows them all.
	top := slices.Max(newer)
	found, err := bus.Call[request.Found](ctx, m.bus, request.DispatcherFind(shard), request.Find{Account: account, Ref: top.String()})
	switch {
	case err != nil:
		return absent
	case found.Group != nil:
		m.ids.note(top)
		return absent
	}
	known, err := bus.Call[request.Changed](ctx, m.bus, request.DispatcherChanged(shard), request.ChangedBy{Account: account, Messages: newer})
	if err != nil || len(known.Messages) != len(newer) {
		return absent
	}
	for i, id := range newer {
		if known.Messages[i].Known {
			m.ids.note(id)
		} else {
			absent = with(absent, id)
		}
	}
	return absent
}

func with(ids map[streams.MessageID]bool, id streams.MessageID) map[streams.MessageID]bool {
	if ids == nil {
		ids = map[streams.MessageID]bool{}
	}
	ids[id] = true
	return ids
}

// oldest is the lowest id that is not behind a shard's horizon, as far as is known here.
func (m *Messages) oldest(ctx context.Context, shard streams.Shard) streams.MessageID {
	now := m.now()
	m.ids.mu.Lock()
	last, ok := m.ids.horizons[shard]
	m.ids.mu.Unlock()
	if ok && now.Sub(last.read) < horizonFor {
		return last.oldest
	}
	msg, err := m.bus.LastForSubject(ctx, streams.StatusStream(shard), streams.HorizonSubject(shard))
	switch {
	case errors.Is(err, bus.ErrNoMessage):
	case err != nil:
		return last.oldest
	default:
		if e, err := event.Decode[event.Horizon](msg.Data); err == nil {
			last.oldest = streams.FirstIDAt(e.Before)
		}
	}
	last.read = now
	m.ids.mu.Lock()
	m.ids.horizons[shard] = last
	m.ids.mu.Unlock()
	return last.oldest
}
