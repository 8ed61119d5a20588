package dispatcher

import (
	"context"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// endpoints is what a shard answers to.
func (s *shard) endpoints() []bus.Endpoint {
	return []bus.Endpoint{
		{Subject: request.DispatcherPull(s.number), Handler: bus.Handle(s.pull)},
		{Subject: request.DispatcherHangup(s.number), Handler: bus.Handle(s.hangUp), Broadcast: true},
		{Subject: request.DispatcherChanged(s.number), Handler: bus.Handle(s.changed)},
		{Subject: request.DispatcherPreview(s.number), Handler: bus.Handle(s.preview)},
		{Subject: request.DispatcherShow(s.number), Handler: bus.Handle(s.show)},
		{Subject: request.DispatcherList(s.number), Handler: bus.Handle(s.list)},
		{Subject: request.DispatcherFind(s.number), Handler: bus.Handle(s.find)},
		{Subject: request.DispatcherBrowse(s.number), Handler: bus.Handle(s.browse)},
		{Subject: request.DispatcherCancel(s.number), Handler: bus.Handle(s.cancel)},
		{Subject: request.DispatcherRequeue(s.number), Handler: bus.Handle(s.requeue)},
	}
}

var errCatchingUp = fault.New(fault.Unavailable, "catching_up", "The queue is catching up")

// ready waits until everything is folded that the streams held at the start:
// before, nobody can be told where a message stands or that there is none. It
// fails while nothing can be folded: what is decided then would not be seen.
func (s *shard) ready(ctx context.Context) error {
	if err := s.file.Err(); err != nil {
		return err
	}
	if err := s.file.Ready(ctx); err != nil {
		return errCatchingUp.With(err)
	}
	return nil
}

func (s *shard) hangUp(_ context.Context, q request.Hangup) (struct{}, error) {
	s.polls.hangUp(q.Poll)
	return struct{}{}, nil
}

// changed says what a stored report did. A message whose enqueue is not folded
// yet is known all the same.
func (s *shard) changed(ctx context.Context, q request.ChangedBy) (request.Changed, error) {
	if err := s.file.Wait(ctx, s.status, q.Seq); err != nil {
		return request.Changed{}, errCatchingUp.With(err)
	}
	folded := s.file.Cursor(s.enqueue)
	answer, known, err := s.changes(q)
	if err != nil {
		return answer, err
	}
	if !known {
		// A stub is an unknown message only if ENQUEUE holds none that is not
		// folded.
		if more, err := s.catchUp(ctx, q.Account, folded); err != nil {
			return answer, err
		} else if more {
			if answer, _, err = s.changes(q); err != nil {
				return answer, err
			}
		}
	}
	giveBack, err := s.turns.Lock(ctx, q.Account)
	if err != nil {
		return answer, err
	}
	defer giveBack()
	return answer, s.contact(ctx, q.Account, q.Device)
}

func (s *shard) changes(q request.ChangedBy) (answer request.Changed, allKnown bool, err error) {
	answer.Messages = make([]request.Change, len(q.Messages))
	allKnown = true
	err = s.view(func(v view) error {
		for i, m := range q.Messages {
			r, _, err := v.record(q.Account, m)
			if err != nil {
				return err
			}
			known := r.known()
			answer.Messages[i] = request.Change{Known: known, Changed: known && r.changedBy(q.Seq), State: r.stands()}
			allKnown = allKnown && known
		}
		return nil
	})
	return answer, allKnown, err
}

// preview says what a report would change, by all that is stored about the
// account when it is asked. The report may come to nothing, so the device's
// contact counts here.
func (s *shard) preview(ctx context.Context, q request.Preview) (request.Changed, error) {
	answer := request.Changed{Messages: make([]request.Change, len(q.Messages))}
	if err := s.ready(ctx); err != nil {
		return answer, err
	}
	if err := s.foldKnown(ctx, q.Account); err != nil {
		return answer, err
	}
	err := s.view(func(v view) error {
		w := writer{view: v, account: q.Account}
		for i, said := range q.Messages {
			r, _, err := v.record(q.Account, said.ID)
			if err != nil {
				return err
			}
			holder, err := w.holds(&r, q.Device)
			if err != nil {
				return err
			}
			answer.Messages[i] = request.Change{Known: r.known(), Changed: r.known() && r.moves(said.State, holder), State: r.stands()}
		}
		return nil
	})
	if err != nil {
		return answer, err
	}
	giveBack, err := s.turns.Lock(ctx, q.Account)
	if err != nil {
		return answer, err
	}
	defer giveBack()
	return answer, s.contact(ctx, q.Account, q.Device)
}

// cancel takes messages back that have not ended. A phone that holds one may
// send it all the same, and its report then counts.
func (s *shard) cancel(ctx context.Context, q request.Decide) (request.Decided, error) {
	return s.decideAll(ctx, q, func(r record, _ bool) bool {
		return !r.state.Terminal() && (!q.Waiting || r.state == streams.Pending)
	}, func(turns []event.Turn) event.Event { return event.Cancelled{At: s.now(), Messages: turns} })
}

// requeue offers messages again that ended without success, or that a device
// holds after its lease lapsed.
func (s *shard) requeue(ctx context.Context, q request.Decide) (request.Decided, error) {
	return s.decideAll(ctx, q, func(r record, held bool) bool {
		return r.state.Terminal() && !r.state.Success() || r.state == streams.Leased && held
	}, func(turns []event.Turn) event.Event {
		return event.Requeued{At: s.now(), Until: s.now().Add(streams.DefaultValidity), Messages: turns}
	})
}

func (s *shard) now() time.Time { return s.deps.Now().UTC().Truncate(time.Millisecond) }

// since is when now began, or stepped last.
func (s *shard) since() time.Time { return s.deps.Since().UTC().Truncate(time.Millisecond) }

// sure is a time that has surely come: what was scheduled goes out by it,
// validities end, and the horizon moves.
func (s *shard) sure() time.Time { return s.deps.Sure().UTC().Truncate(time.Millisecond) }

// wait says when a time that is to be sure will be so, as far as is known now.
func (s *shard) wait(until time.Time) time.Time { return until.Add(max(s.now().Sub(s.sure()), 0)) }

// decideAll decides about those of the messages that fit.
func (s *shard) decideAll(ctx context.Context, q request.Decide, fits func(r record, held bool) bool, decision func([]event.Turn) event.Event) (request.Decided, error) {
	answer := request.Decided{Changed: []streams.MessageID{}}
	if len(q.Messages) > event.MaxItems {
		return answer, fault.New(fault.Invalid, "too_many", "At most 1000 messages at a time")
	}
	if err := s.ready(ctx); err != nil {
		return answer, err
	}
	giveBack, err := s.turns.Lock(ctx, q.Account)
	if err != nil {
		return answer, err
	}
	defer giveBack()
	if err := s.foldAccepted(ctx); err != nil {
		return answer, err
	}
	err = s.decide(ctx, q.Account, func(v view) (event.Event, error) {
		var turns []event.Turn
		answer.Changed = answer.Changed[:0]
		for _, m := range q.Messages {
			r, _, err := v.record(q.Account, m)
			if err != nil {
				return nil, err
			}
			held, err := v.heldRecord(q.Account, &r)
			if err != nil {
				return nil, err
			}
			if r.known() && fits(r, held) {
				turns = append(turns, event.Turn{ID: m, Round: r.round})
				answer.Changed = append(answer.Changed, m)
			}
		}
		if len(turns) == 0 {
			return nil, nil
		}
		return decision(turns), nil
	})
	return answer, err
}
