package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const (
	// Limit: at most 1,000 messages that are due, or whose validity is over, are enqueued or ended at a time, and due
	// ones in parts of about 4 MiB. Beyond it: the rest follows.
	// Used up by: an account with many messages that are due or over at once. Hurts: others, whose messages wait for so
	// many of that account's, and not for all of them. Test: TestScheduledMessagesGoOutWhenTheyAreDue.
	atATime = event.MaxItems
	// enqueuedAtATime is how many messages are enqueued before they are folded.
	enqueuedAtATime = 10 * atATime
	// commitsAtATime is how many commits wait while more messages are read.
	commitsAtATime = 2
)

// schedule enqueues scheduled messages when they are due.
type schedule struct {
	*shard
	bodies    *bodies
	committer *bus.Committer // into ENQUEUE
}

// enqueueDue enqueues the messages that are due, and says when the next one is due.
// That is no decision and needs no fence: the fold leaves a message that was
// cancelled meanwhile cancelled, and one that is enqueued twice, perhaps by two
// dispatchers, changes nothing the second time.
func (s *schedule) enqueueDue(ctx context.Context) (time.Time, error) {
	for {
		var all []state.Due
		next := s.sure().Add(lookAtLeast)
		err := s.view(func(v state.View) (err error) {
			all, next, err = v.Due(s.sure(), next, enqueuedAtATime)
			return err
		})
		if err != nil || len(all) == 0 {
			return s.sureAt(next), err
		}
		enqueued, err := s.enqueueAll(ctx, all)
		if err != nil {
			return next, fmt.Errorf("enqueue scheduled messages that are due: %w", err)
		}
		if enqueued == 0 {
			// What cannot be read stays scheduled until its validity ends.
			return s.sureAt(clock.Earlier(next, s.sure().Add(retryUnreadable))), nil
		}
		last, err := s.deps.Bus.LastForSubjects(ctx, s.enqueue, streams.EnqueuedSubjects(s.number))
		if err == nil {
			err = s.file.Wait(ctx, s.enqueue, last)
		}
		if err != nil {
			return next, fmt.Errorf("fold what was due: %w", err)
		}
	}
}

// enqueueAll enqueues messages, and says how many. The next ones are read while the
// last ones are stored.
func (s *schedule) enqueueAll(ctx context.Context, all []state.Due) (enqueued int, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(commitsAtATime)
	var msgs []*nats.Msg
	size := 0
	commit := func() {
		if own := msgs; len(own) > 0 {
			group.Go(func() error { return s.commit(ctx, own) })
		}
		enqueued += len(msgs)
		msgs, size = nil, 0
	}
	for part := range slices.Chunk(all, readAtOnce) {
		wanted := make([]candidate, len(part))
		for i, one := range part {
			wanted[i].Place = one.Place
		}
		if err := s.bodies.read(ctx, wanted); err != nil {
			return 0, errors.Join(err, group.Wait())
		}
		for i, c := range wanted {
			if c.body == nil {
				continue // logged already
			}
			m, err := asEnqueued(s.number, part[i].Account, c)
			if err != nil {
				return 0, errors.Join(err, group.Wait())
			}
			msgs = append(msgs, m)
			size += len(m.Data)
		}
		if len(msgs)+readAtOnce > atATime || size > maxPageBytes {
			commit()
		}
	}
	commit()
	return enqueued, group.Wait()
}

// asEnqueued writes a scheduled message as an enqueued one.
func asEnqueued(shard streams.Shard, a streams.AccountID, c candidate) (*nats.Msg, error) {
	e, err := event.Decode[event.Scheduled](c.body)
	if err != nil {
		return nil, err
	}
	e.Released, e.Grant = true, ""
	m, err := event.Message(streams.EnqueueSubject(shard, a, e.Lane), e.Enqueued)
	if err != nil {
		return nil, err
	}
	m.Header[jetstream.MsgIDHeader] = []string{a.String() + "/" + c.ID.String() + "/due"}
	return m, nil
}

// commit stores enqueued messages. Where another dispatcher was quicker with some,
// the others are stored one by one.
func (s *schedule) commit(ctx context.Context, msgs []*nats.Msg) error {
	if _, err := s.committer.Commit(ctx, msgs); !errors.Is(err, bus.ErrDuplicate) {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range msgs {
		group.Go(func() error {
			if _, err := s.committer.Commit(ctx, []*nats.Msg{m}); !errors.Is(err, bus.ErrDuplicate) {
				return err
			}
			return nil
		})
	}
	return group.Wait()
}
