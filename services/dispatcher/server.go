package dispatcher

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// server is a dispatcher over one shard: the parts that act on it, put together.
type server struct {
	*shard
	metrics *metrics

	polls     *polls
	puller    *puller
	reports   *reports
	commands  *commands
	questions *questions
	storage   *storage
	schedule  *schedule

	leasesDue, invalid, scheduled, purges *reaction
}

func openServer(d *Dispatcher, number streams.Shard) (*server, error) {
	shard := newShard(d.deps, number)
	s := &server{shard: shard, metrics: d.metrics, polls: &polls{}}
	decisions := &decider{shard: shard, conflicts: d.metrics.conflicts}
	bodies := &bodies{shard: shard}
	leases := &leases{shard: shard, decisions: decisions}
	horizon := &horizon{shard: shard}
	validity := &validity{shard, decisions}
	s.puller = &puller{
		shard:     shard,
		gatherer:  &gatherer{shard, &consumers{shard, d.cfg.ConsumerIdle}, bodies},
		decisions: decisions, leases: leases, polls: s.polls,
		ids:       streams.NewIDs(d.deps.Now, d.deps.Instance, streams.Epoch),
		maxLeases: d.cfg.MaxLeases, handedOut: d.metrics.handedOut,
	}
	s.reports = &reports{shard, decisions, leases}
	s.commands = &commands{shard, decisions}
	s.questions = &questions{shard, bodies}
	s.storage = newStorage(shard, d.metrics, d.cfg.AccountShare)
	s.schedule = &schedule{shard, bodies, bus.NewCommitter(d.deps.Bus, shard.enqueue, bus.CommitterOptions{Now: d.deps.Now})}

	s.leasesDue = newReaction(shard, func(ctx context.Context) (next time.Time, err error) {
		if next, err = horizon.move(ctx); err != nil {
			return next, err
		}
		ends, err := leases.endDue(ctx)
		return clock.Earlier(next, ends), err
	})
	s.invalid = newReaction(shard, validity.end)
	s.scheduled = newReaction(shard, s.schedule.enqueueDue)
	s.purges = newReaction(shard, horizon.purgeDue)

	file, err := projection.Open(filepath.Join(d.deps.Dir, shard.name()+".db"), d.deps.Bus, state.Fold{Shard: number}, projection.Options{
		Committed: s.committed,
		Render:    state.Render,
		Log:       d.deps.Log.Named(shard.name()),
	})
	if err != nil {
		return nil, fmt.Errorf("open projection %s: %w", shard.name(), err)
	}
	shard.file = file
	d.metrics.watch(shard)
	return s, nil
}

func (s *server) close() {
	s.metrics.forget(s.shard)
	_ = s.file.Close()
}

// run folds, and does what is due as time passes, until ctx is done.
func (s *server) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.file.Run(ctx) })
	group.Go(func() error { return s.schedule.committer.Run(ctx) })
	group.Go(func() error { return s.storage.run(ctx) })
	for _, r := range []*reaction{s.leasesDue, s.invalid, s.scheduled, s.purges} {
		group.Go(func() error { return r.run(ctx) })
	}
	group.Go(func() error {
		<-ctx.Done()
		s.polls.stop()
		return nil
	})
	return group.Wait()
}

// endpoints are the requests that a shard answers.
func (s *server) endpoints() []bus.Endpoint {
	return []bus.Endpoint{
		{Subject: request.DispatcherPull(s.number), Handler: bus.Handle(s.puller.pull)},
		{Subject: request.DispatcherHangup(s.number), Handler: bus.Handle(s.puller.hangUp), Broadcast: true},
		{Subject: request.DispatcherChanged(s.number), Handler: bus.Handle(s.reports.changed)},
		{Subject: request.DispatcherPreview(s.number), Handler: bus.Handle(s.reports.preview)},
		{Subject: request.DispatcherShow(s.number), Handler: bus.Handle(s.questions.show)},
		{Subject: request.DispatcherList(s.number), Handler: bus.Handle(s.questions.list)},
		{Subject: request.DispatcherFind(s.number), Handler: bus.Handle(s.questions.find)},
		{Subject: request.DispatcherBrowse(s.number), Handler: bus.Handle(s.questions.browse)},
		{Subject: request.DispatcherCancel(s.number), Handler: bus.Handle(s.commands.cancel)},
		{Subject: request.DispatcherRequeue(s.number), Handler: bus.Handle(s.commands.requeue)},
	}
}

// committed wakes what waits for the events that were just folded.
func (s *server) committed(events []projection.Event) {
	s.storage.changed()
	polled := s.polls.any()
	var accepted, scheduled bool
	woken := map[streams.AccountID]map[wakeKey]bool{}
	wake := func(a streams.AccountID, lane streams.Lane) {
		if woken[a] == nil {
			woken[a] = map[wakeKey]bool{}
		}
		woken[a][keyOf(lane)] = true
	}
	for _, e := range events {
		switch event.Kind(e.Kind) {
		case event.KindScheduled:
			scheduled = true
		case event.KindEnqueued:
			accepted = true
			if a, lane, err := streams.ParseEnqueueSubject(e.Subject); polled && err == nil {
				wake(a, lane)
			}
		case event.KindLapsed, event.KindRequeued:
			scheduled = scheduled || event.Kind(e.Kind) == event.KindRequeued // perhaps before it was due
			if polled {
				_ = s.view(func(v state.View) error { return v.EachReturned(e, wake) })
			}
			s.metrics.lapses(e)
		case event.KindLeased:
			s.leasesDue.lookAgain()
		}
	}
	if scheduled {
		s.scheduled.lookAgain()
	}
	if scheduled || accepted {
		s.invalid.lookAgain()
	}
	for a, keys := range woken {
		for key := range keys {
			s.polls.wake(a, key)
		}
	}
}
