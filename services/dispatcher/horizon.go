package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const (
	// horizonEvery is how often the horizon moves.
	horizonEvery = time.Hour
	// horizonWithin bounds one move of the horizon, and one purge.
	horizonWithin = 30 * time.Second
)

// horizon moves the horizon of a shard on, and purges the streams of events that
// are far enough behind it. The horizon is the time before which nothing is known:
// the state drops what is older. An event in STATUS moves it, so that all
// dispatchers, and every rebuild, drop the same.
type horizon struct {
	*shard
	full   atomic.Bool // STATUS has no room for the horizon's events
	purges purges
}

// move moves the horizon to where it is due, and says when it is due next. It
// moves by an hour at a time, however far: all that one event drops is dropped in
// one transaction.
func (s *horizon) move(ctx context.Context) (time.Time, error) {
	for {
		due, moved, err := s.moveOnce(ctx)
		s.full.Store(errors.Is(err, bus.ErrFull))
		switch {
		case err != nil:
			return time.Time{}, fmt.Errorf("move horizon: %w", err)
		case !moved:
			return s.sureAt(due), nil
		}
	}
}

// moveOnce moves the horizon on by an hour at most, if it is due. It gives when
// the horizon is due next.
func (s *horizon) moveOnce(ctx context.Context) (due time.Time, moved bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, horizonWithin)
	defer cancel()
	subject := streams.HorizonSubject(s.number)
	err = s.decisionsOf(subject).Decide(ctx, func() (m *nats.Msg, last uint64, err error) {
		var before time.Time
		err = s.view(func(v state.View) error {
			before, last = v.Horizon()
			return nil
		})
		now := s.sure()
		due = before.Add(state.Kept + horizonEvery)
		if moved = err == nil && !due.After(now); !moved {
			return nil, 0, err
		}
		to := now.Add(-state.Kept)
		if !before.IsZero() {
			to = clock.Earlier(to, before.Add(horizonEvery))
		}
		// The place is read before the time: all of ENQUEUE up to that place was stored by that time.
		e := event.Horizon{Before: to, Enqueue: s.file.Cursor(s.enqueue)}
		e.At = s.now()
		m, err = event.Message(subject, e)
		return m, last, err
	})
	return due, moved, err
}

// Limit: 1,000 horizon events are read before a purge. Beyond it: the rest is purged a minute later.
// Used up by: a dispatcher that purged nothing for six weeks. Hurts: nobody. Test: TestForget_ManyMarks.
const horizonsAtOnce = 1000

// The engine stores nothing in a stream while it purges, so a purge is taken apart.
//
// Limit: one request purges 20,000 messages. Beyond it: the next request purges more.
// Used up by: a busy hour. Hurts: nobody: others are stored between two requests. Test: TestForget_ManyMarks.
const purgeAtOnce = 20_000

// purges is what a shard remembers of its purges, in memory alone.
type purges struct {
	until  time.Time // nothing more is due before this is sure
	failed bool      // the last one
}

// purgeDue purges the streams of what was stored longer ago than
// streams.Retention, by times that have surely come. A failure leaves all as it
// is, and the next look tries again.
func (s *horizon) purgeDue(ctx context.Context) (time.Time, error) {
	sure := s.sure()
	if sure.Before(s.purges.until) {
		return s.sureAt(s.purges.until), nil
	}
	ctx, cancel := context.WithTimeout(ctx, horizonWithin)
	defer cancel()
	until, err := s.purge(ctx, sure)
	if err != nil {
		if !s.purges.failed {
			s.deps.Log.Warn("what is over could not be purged, the streams keep it until it can be", zap.Error(err), zap.Int("shard", int(s.number)))
		}
		until = sure.Add(lookAtLeast)
	}
	s.purges = purges{until: until, failed: err != nil}
	return s.sureAt(until), nil
}

// mark is a place in the streams that a horizon event names, and when it was
// made: what is before it was stored by then.
type mark struct {
	status, enqueue uint64
	made            time.Time
	oldForm         bool // by an earlier version, which did not name enqueue
}

// purge drops what is before the newest mark that is old enough, and says when
// there may be more to drop. The order of the streams says what is before: no
// stored time has a part in it.
func (s *horizon) purge(ctx context.Context, sure time.Time) (again time.Time, err error) {
	var horizon time.Time
	err = s.view(func(v state.View) error {
		horizon, _ = v.Horizon()
		return nil
	})
	if err != nil {
		return again, err
	}
	limit := sure.Add(-streams.Retention)
	if !s.full.Load() {
		// What is still known is not purged. Without room in STATUS the horizon cannot move, so then it does not count.
		limit = clock.Earlier(limit, horizon)
	}
	last, again, err := s.lastMark(ctx, sure, limit)
	if err != nil || last.status == 0 {
		return again, err
	}
	if last.oldForm {
		if last.enqueue, err = s.enqueuedBefore(ctx, last.made); err != nil {
			return again, err
		}
	}
	if s.file.Cursor(s.status) < last.status || s.file.Cursor(s.enqueue) < last.enqueue {
		return sure.Add(lookAtLeast), nil // it is being folded again
	}
	for _, one := range []struct {
		stream string
		first  uint64 // that is kept: the mark, too
	}{{s.enqueue, last.enqueue + 1}, {s.status, last.status}} {
		if one.first == 1 {
			continue
		}
		if err := s.purgeBelow(ctx, one.stream, one.first); err != nil {
			return again, fmt.Errorf("purge %s: %w", one.stream, err)
		}
	}
	return again, nil
}

// purgeBelow purges a stream of all before first.
func (s *horizon) purgeBelow(ctx context.Context, name string, first uint64) error {
	stream, err := s.deps.Bus.JS.Stream(ctx, name)
	if err != nil {
		return err
	}
	for to := stream.CachedInfo().State.FirstSeq; to < first; {
		to = min(to+purgeAtOnce, first)
		if err := stream.Purge(ctx, jetstream.WithPurgeSequence(to)); err != nil {
			return err
		}
	}
	return nil
}

// lastMark reads the oldest marks in order and gives the last one that was made
// by limit, if there is any, and when the next one will be old enough. One that
// was made by a clock that was ahead of what is sure now says nothing.
func (s *horizon) lastMark(ctx context.Context, sure, limit time.Time) (last mark, again time.Time, err error) {
	again = sure.Add(horizonEvery)
	var seq uint64
	for range horizonsAtOnce {
		m, err := s.deps.Bus.FirstAfter(ctx, s.status, streams.HorizonSubject(s.number), seq)
		if errors.Is(err, bus.ErrNoMessage) {
			return last, again, nil
		}
		if err != nil {
			return last, again, err
		}
		seq = m.Sequence
		e, err := event.Decode[event.Horizon](m.Data)
		if err != nil {
			continue // as the fold does, which counts it
		}
		switch made := state.HorizonMadeAt(e, m.Time); {
		case made.After(sure):
		case made.After(limit):
			// Where the horizon is late, it moves soon.
			return last, clock.Later(made.Add(streams.Retention), sure.Add(lookAtLeast)), nil
		default:
			last = mark{status: seq, enqueue: e.Enqueue, made: made, oldForm: e.At.IsZero()}
		}
	}
	return last, sure.Add(lookAtLeast), nil
}

// enqueuedBefore gives the last place in ENQUEUE up to which all messages tell
// that they were stored before a time, 0 if there is none: for marks that do not
// name one. Clocks of ingresses differ by less than what the streams keep beyond
// the horizon.
func (s *horizon) enqueuedBefore(ctx context.Context, made time.Time) (uint64, error) {
	stream, err := s.deps.Bus.JS.Stream(ctx, s.enqueue)
	if err != nil {
		return 0, fmt.Errorf("read state of %s: %w", s.enqueue, err)
	}
	stored := stream.CachedInfo().State
	var found uint64
	for low, high := stored.FirstSeq, stored.LastSeq+1; low < high; {
		middle := low + (high-low)/2
		m, err := s.deps.Bus.FirstAfter(ctx, s.enqueue, streams.EnqueuedSubjects(s.number), middle-1)
		if err != nil && !errors.Is(err, bus.ErrNoMessage) {
			return 0, err
		}
		before := false
		if err == nil && m.Sequence < high {
			h, err := state.ReadEnvelope(m.Data)
			before = err == nil && h.StoredAt().Before(made)
		}
		if before {
			found, low = m.Sequence, m.Sequence+1
		} else {
			high = middle
		}
	}
	return found, nil
}
