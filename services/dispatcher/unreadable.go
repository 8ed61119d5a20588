package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// unreadable are messages that ENQUEUE holds and does not give, or gives as
// something else: their place on the disk is damaged. They are never sent, and
// stay pending until somebody cancels them.
type unreadable struct {
	mu   sync.Mutex
	said map[uint64]bool // by sequence
}

// mostSaid bounds what is remembered of what was logged.
const mostSaid = 10_000

// say logs a message that cannot be sent, once.
func (s *shard) say(seq uint64, id streams.MessageID, err error) {
	u := &s.unreadable
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.said[seq] {
		return
	}
	if u.said == nil || len(u.said) >= mostSaid {
		u.said = map[uint64]bool{}
	}
	u.said[seq] = true
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
	if err == nil && seq >= stream.CachedInfo().State.FirstSeq {
		s.say(seq, id, bus.ErrNoMessage)
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
	return true
}
