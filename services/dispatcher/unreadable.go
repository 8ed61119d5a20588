package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// unreadable are messages that ENQUEUE holds and does not give, or gives as
// something else: their place on the disk is damaged. They are not sent while
// that is so, and stay pending until somebody cancels them. Pulls pass over them.
type unreadable struct {
	mu    sync.Mutex
	tried map[uint64]time.Time // by sequence: when it was read in vain
}

// mostUnreadable bounds those that are remembered. Beyond it all are found out
// anew, and logged anew. Only a broken disk uses it up; it hurts the accounts
// with those messages.
const mostUnreadable = 100_000

// note remembers one, and says whether it is new.
func (u *unreadable) note(seq uint64, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, known := u.tried[seq]
	if u.tried == nil || !known && len(u.tried) >= mostUnreadable {
		u.tried = map[uint64]time.Time{}
	}
	u.tried[seq] = now
	return !known
}

// forget says that one has been read.
func (u *unreadable) forget(seq uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.tried, seq)
}

// passed says that a message need not be read now: nil if that is true of none.
// Of those that could not be read a minute ago or longer, a few are tried again.
func (u *unreadable) passed(now time.Time) func(seq uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.tried) == 0 {
		return func(uint64) bool { return false }
	}
	again := readers
	return func(seq uint64) bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		tried, known := u.tried[seq]
		if known && again > 0 && now.Sub(tried) >= retryUnreadable {
			again--
			return false
		}
		return known
	}
}

// say logs a message that cannot be sent, once.
func (s *shard) say(seq uint64, id streams.MessageID, err error) {
	if !s.unreadable.note(seq, s.deps.Now()) {
		return
	}
	s.deps.Log.Error("a message is damaged on the disk and is not sent: cancel it, and look after the disk",
		zap.String("stream", s.enqueue), zap.Uint64("seq", seq), zap.Stringer("message", id), zap.Error(err))
}

// bodyOf checks that what was read is the message that was looked for.
func bodyOf(data []byte, want streams.MessageID) error {
	e, err := event.Decode[event.Enqueued](data)
	if err != nil {
		return err
	}
	if e.ID != want {
		return fmt.Errorf("it is message %s", e.ID)
	}
	return nil
}

// missing tells a message that has aged out of ENQUEUE from one that is there
// and cannot be read, and logs the latter.
func (s *shard) missing(ctx context.Context, seq uint64, id streams.MessageID) {
	ctx, cancel := context.WithTimeout(ctx, catchUpWithin)
	defer cancel()
	stream, err := s.deps.Bus.JS.Stream(ctx, s.enqueue)
	switch {
	case err != nil:
	case seq >= stream.CachedInfo().State.FirstSeq:
		s.say(seq, id, bus.ErrNoMessage)
	default:
		s.unreadable.note(seq, s.deps.Now())
	}
}

// readable reads a lane's first message because its consumer does not give it.
func (s *shard) readable(ctx context.Context, first candidate) bool {
	m, err := s.deps.Bus.Get(ctx, s.enqueue, first.seq)
	switch {
	case errors.Is(err, bus.ErrNoMessage):
		s.missing(ctx, first.seq, first.id)
		return false
	case err != nil:
		return true // for all that is known
	}
	if err := bodyOf(m.Data, first.id); err != nil {
		s.say(first.seq, first.id, err)
		return false
	}
	s.unreadable.forget(first.seq)
	return true
}
