package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
)

// shard is what all parts that act on a shard share: its two streams, the state
// that was folded of them, and the time. It decides nothing.
type shard struct {
	deps    Deps
	number  streams.Shard
	enqueue string // the stream names
	status  string
	file    *projection.File
}

func newShard(d Deps, number streams.Shard) *shard {
	return &shard{deps: d, number: number, enqueue: streams.EnqueueStream(number), status: streams.StatusStream(number)}
}

// name names the shard's projection.
func (s *shard) name() string { return "dispatcher-" + s.number.String() }

// view reads the state. Where nothing was ever folded there is nothing to read,
// and f is not called.
func (s *shard) view(f func(state.View) error) error {
	return s.file.View(func(tx *bolt.Tx) error {
		if v, ok := state.In(tx); ok {
			return f(v)
		}
		return nil
	})
}

// account reads the state of one account, as view does.
func (s *shard) account(a streams.AccountID, f func(state.Account) error) error {
	return s.view(func(v state.View) error { return f(v.Account(a)) })
}

func (s *shard) now() time.Time { return s.deps.Now().UTC().Truncate(time.Millisecond) }

// since is when now began, or stepped last.
func (s *shard) since() time.Time { return s.deps.Since().UTC().Truncate(time.Millisecond) }

// sure is a time that has surely come. What was scheduled is enqueued by it,
// validities end by it, and the horizon moves by it.
func (s *shard) sure() time.Time { return s.deps.Sure().UTC().Truncate(time.Millisecond) }

// sureAt is the time, by now, at which another time will be sure, as far as is
// known now.
func (s *shard) sureAt(t time.Time) time.Time { return t.Add(max(s.now().Sub(s.sure()), 0)) }

// catchUpWithin bounds a wait for what is stored and not folded yet.
const catchUpWithin = 2 * time.Second

var errCatchingUp = fault.New(fault.Unavailable, "catching_up", "The queue is catching up")

// ready waits until everything is folded that the streams held at the start.
// Before that, nobody can be told where a message stands, or that there is none.
// It fails while nothing can be folded: decisions would not be seen.
func (s *shard) ready(ctx context.Context) error {
	if err := s.file.Err(); err != nil {
		return err
	}
	if err := s.file.Ready(ctx); err != nil {
		return errCatchingUp.With(err)
	}
	return nil
}

// follows says that the projection follows the streams now.
func (s *shard) follows() bool {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	return s.file.Err() == nil && s.file.Ready(now) == nil
}

// catchUp looks for a message of the account in ENQUEUE behind what was folded,
// waits until it is folded too, and says whether there was one. The caller took
// folded before it read the state.
func (s *shard) catchUp(ctx context.Context, a streams.AccountID, folded uint64) (bool, error) {
	m, err := s.deps.Bus.Next(ctx, s.enqueue, streams.AccountSubjects(s.number, a), folded+1)
	if errors.Is(err, bus.ErrNoMessage) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for unfolded messages: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpWithin)
	defer cancel()
	return true, s.file.Wait(ctx, s.enqueue, m.Sequence)
}

// foldAccepted waits until everything is folded that is accepted now.
func (s *shard) foldAccepted(ctx context.Context) error {
	return s.foldLast(ctx, s.enqueue, streams.AcceptedSubjects(s.number)...)
}

// foldKnown waits until everything is folded that is stored now about an
// account, whichever dispatcher or ingress stored it.
func (s *shard) foldKnown(ctx context.Context, a streams.AccountID) error {
	if err := s.foldLast(ctx, s.enqueue, streams.AccountSubjects(s.number, a), streams.ScheduledSubject(s.number, a)); err != nil {
		return err
	}
	return s.foldLast(ctx, s.status, streams.DecisionSubject(s.number, a), streams.ReportSubject(s.number, a))
}

func (s *shard) foldLast(ctx context.Context, stream string, subjects ...string) error {
	last, err := s.deps.Bus.LastForSubjects(ctx, stream, subjects...)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, catchUpWithin)
		defer cancel()
		err = s.file.Wait(ctx, stream, last)
	}
	if err != nil {
		return errCatchingUp.With(err)
	}
	return nil
}
