package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// readers is how many messages are read by sequence at a time.
	readers = 8
	// readAtOnce is how many messages are read before their size is looked at: each may have the longest text there is.
	readAtOnce = 64
	// retryUnreadable is when messages are read again that could not be.
	retryUnreadable = time.Minute
)

// bodies reads the events of messages from ENQUEUE by their sequence, and
// remembers those that it cannot read.
type bodies struct {
	*shard
	unreadable unreadable
}

// read reads the bodies of candidates. Those that have aged out of ENQUEUE or are
// damaged there stay without one.
func (s *bodies) read(ctx context.Context, wanted []candidate) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for i := range wanted {
		group.Go(func() error {
			c := &wanted[i]
			m, err := s.deps.Bus.Get(ctx, s.enqueue, c.Seq)
			switch {
			case errors.Is(err, bus.ErrNoMessage):
				s.missing(ctx, c.Seq, c.ID)
			case err != nil:
				return err
			default:
				if err := bodyOf(m.Data, c.ID); err != nil {
					s.logDamaged(c.Seq, c.ID, err)
					return nil
				}
				s.unreadable.forget(c.Seq)
				c.body = m.Data
			}
			return nil
		})
	}
	return group.Wait()
}

// unreadable are messages that ENQUEUE holds and does not give, or gives as
// something else: the disk is damaged there. They are not sent while that is so,
// and stay pending until somebody cancels them. Pulls pass over them.
type unreadable struct {
	mu    sync.Mutex
	tried map[uint64]time.Time // by sequence: when it was read in vain
}

// Limit: a shard's dispatcher remembers 100,000 messages that it cannot read. Each costs a pull of its lane 0.4 µs.
// Beyond it: all are forgotten, and are found and logged again; meanwhile pulls of their lanes may come back empty.
// Used up by: a broken disk. Hurts: only the accounts with those messages. Test: TestUnreadable_Bounded.
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

// passed gives a function that says whether a message, by its sequence, is to be
// passed over now. Of those that could not be read a minute ago or longer, a few
// are tried again.
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

// logDamaged logs a message that cannot be sent, once.
func (s *bodies) logDamaged(seq uint64, id streams.MessageID, err error) {
	if !s.unreadable.note(seq, s.deps.Now()) {
		return
	}
	s.deps.Log.Error("a message is damaged on the disk and is not sent: cancel it, and look after the disk",
		zap.String("stream", s.enqueue), zap.Uint64("seq", seq), zap.Stringer("message", id), zap.Error(err))
}

// bodyOf checks that what was read is the message that was looked for.
func bodyOf(data []byte, want streams.MessageID) error {
	e, err := state.CheckEnvelope(data)
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
func (s *bodies) missing(ctx context.Context, seq uint64, id streams.MessageID) {
	ctx, cancel := context.WithTimeout(ctx, catchUpWithin)
	defer cancel()
	stream, err := s.deps.Bus.JS.Stream(ctx, s.enqueue)
	switch {
	case err != nil:
	case seq >= stream.CachedInfo().State.FirstSeq:
		s.logDamaged(seq, id, bus.ErrNoMessage)
	default:
		s.unreadable.note(seq, s.deps.Now())
	}
}

// readable says whether the first message of a lane can be read. It is asked when
// the lane's consumer does not give that message.
func (s *bodies) readable(ctx context.Context, first state.Place) bool {
	m, err := s.deps.Bus.Get(ctx, s.enqueue, first.Seq)
	switch {
	case errors.Is(err, bus.ErrNoMessage):
		s.missing(ctx, first.Seq, first.ID)
		return false
	case err != nil:
		return true // as far as is known
	}
	if err := bodyOf(m.Data, first.ID); err != nil {
		s.logDamaged(first.Seq, first.ID, err)
		return false
	}
	s.unreadable.forget(first.Seq)
	return true
}
