package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// timed is a message that stands under a time.
type timed struct {
	at      time.Time
	account streams.AccountID
	id      streams.MessageID
}

// atATime is how many messages a reaction takes up at a time.
const atATime = event.MaxItems

// upTo lists what stands in a bucket of times up to now, the earliest first,
// and says when the next one comes.
func (v view) upTo(bucket []byte, now, next time.Time) ([]timed, time.Time) {
	var all []timed
	eachKey(v.bucket(bucket), nil, func(key, _ []byte) bool {
		at := fromMillis(id(key, 0))
		if at.After(now) {
			next = earlier(next, at)
			return false
		}
		all = append(all, timed{at, streams.AccountID(id(key, 1)), streams.MessageID(id(key, 2))})
		return len(all) < atATime
	})
	return all, next
}

// expire ends the messages whose validity is over, whoever has them.
func (s *shard) expire(ctx context.Context) (time.Time, error) {
	for {
		var over []timed
		next := s.now().Add(lookAtLeast)
		err := s.view(func(v view) error {
			over, next = v.upTo(validBucket, s.now(), next)
			return nil
		})
		if err != nil || len(over) == 0 {
			return next, err
		}
		byAccount := map[streams.AccountID][]streams.MessageID{}
		for _, one := range over {
			byAccount[one.account] = append(byAccount[one.account], one.id)
		}
		for account, ids := range byAccount {
			if err := s.endValidity(ctx, account, ids); err != nil {
				return next, err
			}
		}
	}
}

func (s *shard) endValidity(ctx context.Context, a streams.AccountID, ids []streams.MessageID) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	giveBack, err := s.turns.Take(ctx, a)
	if err != nil {
		return err
	}
	defer giveBack()
	err = s.decide(ctx, a, func(v view) (event.Event, error) {
		e := event.Expired{At: s.now()}
		for _, m := range ids {
			r, _, err := v.record(a, m)
			if err != nil {
				return nil, err
			}
			if r.expired(e.At) && !r.state.Terminal() {
				e.Messages = append(e.Messages, event.Turn{ID: m, Round: r.round})
			}
		}
		if len(e.Messages) == 0 {
			return nil, nil
		}
		return e, nil
	})
	if err != nil {
		return fmt.Errorf("end the validity of messages: %w", err)
	}
	return nil
}

// release enqueues the scheduled messages that are due. It is no decision: a
// message that was cancelled meanwhile stays so, and a second release of one
// says nothing new.
func (s *shard) release(ctx context.Context) (time.Time, error) {
	for {
		var due []candidate
		var accounts []streams.AccountID
		next := s.now().Add(lookAtLeast)
		err := s.view(func(v view) error {
			var all []timed
			all, next = v.upTo(scheduledBucket, s.now(), next)
			for _, one := range all {
				r, _, err := v.record(one.account, one.id)
				if err != nil {
					return err
				}
				if r.expired(s.now()) {
					next = earlier(next, s.now().Add(retryAfter)) // its validity is ended first
					continue
				}
				due = append(due, candidate{id: one.id, seq: r.seq})
				accounts = append(accounts, one.account)
			}
			return nil
		})
		if err != nil || len(due) == 0 {
			return next, err
		}
		if err := s.read(ctx, due); err != nil {
			return next, fmt.Errorf("read scheduled messages: %w", err)
		}
		var msgs []*nats.Msg
		for i, c := range due {
			if c.body == nil {
				continue // said already
			}
			m, err := released(s.number, accounts[i], c)
			if err != nil {
				return next, err
			}
			msgs = append(msgs, m)
		}
		if len(msgs) == 0 {
			// What cannot be read stays scheduled until its validity ends.
			return earlier(next, s.now().Add(retryUnreadable)), nil
		}
		if err := s.enqueueReleased(ctx, msgs); err != nil {
			return next, fmt.Errorf("release scheduled messages: %w", err)
		}
	}
}

// retryUnreadable is when scheduled messages are read again that could not be.
const retryUnreadable = time.Minute

// released writes a scheduled message as an enqueued one.
func released(shard streams.Shard, a streams.AccountID, c candidate) (*nats.Msg, error) {
	e, err := event.Decode[event.Scheduled](c.body)
	if err != nil {
		return nil, err
	}
	e.Released, e.Grant = true, ""
	m, err := event.Message(streams.EnqueueSubject(shard, a, e.Lane), e.Enqueued)
	if err != nil {
		return nil, err
	}
	m.Header[jetstream.MsgIDHeader] = []string{a.String() + "/" + c.id.String() + "/due"}
	return m, nil
}

// enqueueReleased stores releases, and returns once they are folded. Where
// another dispatcher was quicker with some, the others are stored one by one.
func (s *shard) enqueueReleased(ctx context.Context, msgs []*nats.Msg) error {
	stored, err := s.releases.Commit(ctx, msgs)
	last := stored.First + uint64(len(msgs)) - 1
	if errors.Is(err, bus.ErrDuplicate) {
		if err = s.enqueueEach(ctx, msgs); err == nil {
			return s.foldAccepted(ctx)
		}
	}
	if err != nil {
		return err
	}
	if stored.First == 0 {
		return s.foldAccepted(ctx)
	}
	return s.file.Wait(ctx, s.enqueue, last)
}

func (s *shard) enqueueEach(ctx context.Context, msgs []*nats.Msg) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range msgs {
		group.Go(func() error {
			if _, err := s.releases.Commit(ctx, []*nats.Msg{m}); !errors.Is(err, bus.ErrDuplicate) {
				return err
			}
			return nil
		})
	}
	return group.Wait()
}
