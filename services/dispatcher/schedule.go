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
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// timed is a message that stands under a time.
type timed struct {
	at      time.Time
	account streams.AccountID
	id      streams.MessageID
}

const (
	// atATime is how many messages are read, stored or ended at a time. Used
	// up by an account with much that is due or over at once: others' wait
	// for a round, not for all of it.
	atATime = event.MaxItems
	// releasesAtATime is how many messages are released before they are folded.
	releasesAtATime = 10 * atATime
	// commitsAtATime is how many commits of releases wait while more are read.
	commitsAtATime = 2
)

// over lists the messages whose validity is over, the earliest first, and says
// when the next one's is.
func (v view) over(now, next time.Time, most int) ([]timed, time.Time) {
	var all []timed
	eachKey(v.bucket(validBucket), nil, func(key, _ []byte) bool {
		at := fromMillis(id(key, 0))
		if at.After(now) {
			next = clock.Earlier(next, at)
			return false
		}
		all = append(all, timed{at, streams.AccountID(id(key, 1)), streams.MessageID(id(key, 2))})
		return len(all) < most
	})
	return all, next
}

// expire ends the messages whose validity is over, whoever has them.
func (s *shard) expire(ctx context.Context) (time.Time, error) {
	for {
		var over []timed
		next := s.sure().Add(lookAtLeast)
		err := s.view(func(v view) error {
			over, next = v.over(s.sure(), next, atATime)
			return nil
		})
		if err != nil || len(over) == 0 {
			return s.wait(next), err
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
	err := s.decideInTurn(ctx, a, func(v view) (event.Event, error) {
		e := event.Expired{At: s.sure()}
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
		var all []due
		next := s.sure().Add(lookAtLeast)
		err := s.view(func(v view) (err error) {
			all, next, err = v.due(s.sure(), next)
			return err
		})
		if err != nil || len(all) == 0 {
			return s.wait(next), err
		}
		enqueued, err := s.enqueueDue(ctx, all)
		if err != nil {
			return next, fmt.Errorf("release scheduled messages: %w", err)
		}
		if enqueued == 0 {
			// What cannot be read stays scheduled until its validity ends.
			return s.wait(clock.Earlier(next, s.sure().Add(retryUnreadable))), nil
		}
		last, err := s.deps.Bus.LastForSubjects(ctx, s.enqueue, streams.EnqueuedSubjects(s.number))
		if err == nil {
			err = s.file.Wait(ctx, s.enqueue, last)
		}
		if err != nil {
			return next, fmt.Errorf("fold released messages: %w", err)
		}
	}
}

// due is a scheduled message whose time has come.
type due struct {
	account streams.AccountID
	candidate
}

// accountsLooked is among how many due times of accounts the accounts are found
// that take turns. Used up by an account with so many due before others', which
// then wait until some of its are released.
const accountsLooked = 100_000

// due lists them, and says when the next one comes. The accounts take turns, in
// each the earliest first: who has many that are due at once keeps no other's
// waiting.
func (v view) due(now, next time.Time) ([]due, time.Time, error) {
	accounts, next := v.dueAccounts(now, next)
	if len(accounts) == 0 {
		return nil, next, nil
	}
	each := max(releasesAtATime/len(accounts), 1)
	var lists [][]due
	longest, total := 0, 0
	for _, one := range accounts {
		list, err := v.dueOf(one, now, min(each, releasesAtATime-total))
		if err != nil {
			return nil, next, err
		}
		longest, total = max(longest, len(list)), total+len(list)
		lists = append(lists, list)
	}
	if total == 0 {
		next = clock.Earlier(next, now.Add(retryAfter)) // their validity is ended first
	}
	all := make([]due, 0, total)
	for turn := range longest {
		for _, list := range lists {
			if turn < len(list) {
				all = append(all, list[turn])
			}
		}
	}
	return all, next, nil
}

// dueTimes are when messages of an account are due, the earliest first.
type dueTimes struct {
	account streams.AccountID
	times   []uint64 // milliseconds
}

// dueAccounts finds the accounts that have messages that are due, the earliest
// first. It costs one seek for each account and time.
func (v view) dueAccounts(now, next time.Time) (all []*dueTimes, _ time.Time) {
	found := map[streams.AccountID]*dueTimes{}
	c := v.bucket(scheduledBucket).Cursor()
	key, _ := c.First()
	for range accountsLooked {
		if key == nil {
			break
		}
		at, account := id(key, 0), id(key, 1)
		if fromMillis(at).After(now) {
			return all, clock.Earlier(next, fromMillis(at))
		}
		a := streams.AccountID(account)
		if found[a] == nil {
			found[a] = &dueTimes{account: a}
			all = append(all, found[a])
		}
		found[a].times = append(found[a].times, at)
		if account == 1<<64-1 {
			key, _ = c.Seek(key8(at + 1))
		} else {
			key, _ = c.Seek(key8(at, account+1))
		}
	}
	return all, next
}

// dueOf lists up to so many of an account, without those whose validity is over.
func (v view) dueOf(of *dueTimes, now time.Time, most int) (all []due, err error) {
	for _, at := range of.times {
		if len(all) >= most || err != nil {
			break
		}
		eachKey(v.bucket(scheduledBucket), key8(at, uint64(of.account)), func(key, _ []byte) bool {
			m := streams.MessageID(id(key, 2))
			r, _, failed := v.record(of.account, m)
			if err = failed; err == nil && !r.expired(now) {
				all = append(all, due{of.account, candidate{id: m, seq: r.seq}})
			}
			return err == nil && len(all) < most
		})
	}
	return all, err
}

// enqueueDue stores the releases of messages, and says of how many. While some
// are stored the next ones are read.
func (s *shard) enqueueDue(ctx context.Context, all []due) (enqueued int, err error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(commitsAtATime)
	var msgs []*nats.Msg
	size := 0
	commit := func() {
		if own := msgs; len(own) > 0 {
			group.Go(func() error { return s.enqueueReleased(ctx, own) })
		}
		enqueued += len(msgs)
		msgs, size = nil, 0
	}
	for part := range slices.Chunk(all, readAtOnce) {
		wanted := make([]candidate, len(part))
		for i, one := range part {
			wanted[i] = one.candidate
		}
		if err := s.read(ctx, wanted); err != nil {
			return 0, errors.Join(err, group.Wait())
		}
		for i, c := range wanted {
			if c.body == nil {
				continue // said already
			}
			m, err := released(s.number, part[i].account, c)
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

// enqueueReleased stores releases. Where another dispatcher was quicker with
// some, the others are stored one by one.
func (s *shard) enqueueReleased(ctx context.Context, msgs []*nats.Msg) error {
	if _, err := s.releases.Commit(ctx, msgs); !errors.Is(err, bus.ErrDuplicate) {
		return err
	}
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
