// Package dispatcher knows where every message stands: it folds ENQUEUE and
// STATUS, hands messages out to phones under leases, and decides what becomes
// of leases that run out. Any number of dispatchers may run over the same
// streams: every decision is fenced.
package dispatcher

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/keylock"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// Dispatcher is the service.
type Dispatcher struct {
	cfg     Config
	deps    Deps
	metrics *metrics

	opened chan struct{} // closed when Run has opened the shards
	shards []*shard
}

// New makes a dispatcher over the shards that its settings name. It does nothing before Run.
func New(cfg Config, d Deps) *Dispatcher {
	return &Dispatcher{cfg: cfg, deps: d, metrics: newMetrics(d.Metrics), opened: make(chan struct{})}
}

// Name is "dispatcher".
func (d *Dispatcher) Name() string { return "dispatcher" }

// Ready returns when everything is folded that was stored at the start. It
// fails with ctx, and while nothing can be folded.
func (d *Dispatcher) Ready(ctx context.Context) error {
	select {
	case <-d.opened:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, s := range d.shards {
		if err := s.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Run folds and serves until ctx is done.
func (d *Dispatcher) Run(ctx context.Context) error {
	var shards []*shard
	defer func() {
		for _, s := range shards {
			s.close()
		}
	}()
	var endpoints []bus.Endpoint
	numbers, err := d.cfg.serves(d.deps.Shards)
	if err != nil {
		return err
	}
	for _, number := range numbers {
		s, err := d.open(number)
		if err != nil {
			return err
		}
		shards = append(shards, s)
		endpoints = append(endpoints, s.endpoints()...)
		endpoints = append(endpoints, s.file.Endpoints(s.name())...)
	}
	d.shards = shards
	close(d.opened)
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range shards {
		group.Go(func() error { return s.file.Run(ctx) })
		group.Go(func() error { return s.releases.Run(ctx) })
		group.Go(func() error { return s.share(ctx) })
		for _, r := range []*reaction{s.leases, s.validity, s.schedule, s.forgets} {
			group.Go(func() error { return s.react(ctx, r) })
		}
		group.Go(func() error {
			<-ctx.Done()
			s.polls.stop()
			return nil
		})
	}
	group.Go(func() error {
		return d.deps.Bus.Serve(ctx, bus.ServeOptions{
			Name: d.Name(), Version: "1.0.0", Description: "Hands messages to phones and knows where each stands",
			Endpoints: endpoints, Log: d.deps.Log,
		})
	})
	return group.Wait()
}

// shard is a dispatcher over one shard.
type shard struct {
	*Dispatcher
	number     streams.Shard
	enqueue    string // the stream names
	status     string
	file       *projection.File
	ids        *streams.IDs
	turns      keylock.Locks[streams.AccountID] // decisions about an account follow each other
	polls      polls
	unreadable unreadable
	releases   *bus.Committer // of what was scheduled, into ENQUEUE
	stored     chan struct{}  // has a token when something was folded: see share

	leases, validity, schedule, forgets *reaction

	ending      map[leaseRef]bool // by leases, since then: see endLeases
	endingSince time.Time

	full   atomic.Bool // STATUS has no room for the horizon
	purges purges      // by forgets
}

func (d *Dispatcher) open(number streams.Shard) (*shard, error) {
	s := &shard{
		Dispatcher: d,
		number:     number,
		stored:     make(chan struct{}, 1),
		enqueue:    streams.EnqueueStream(number),
		status:     streams.StatusStream(number),
		releases:   bus.NewCommitter(d.deps.Bus, streams.EnqueueStream(number), bus.CommitterOptions{Now: d.deps.Now}),
	}
	s.leases = newReaction(s.endLeases)
	s.validity = newReaction(s.expire)
	s.schedule = newReaction(s.release)
	s.forgets = newReaction(s.forget)
	file, err := projection.Open(filepath.Join(d.deps.Dir, s.name()+".db"), d.deps.Bus, fold{number}, projection.Options{
		Committed: s.committed,
		Render:    render,
		Log:       d.deps.Log.Named(s.name()),
	})
	if err != nil {
		return nil, fmt.Errorf("open projection %s: %w", s.name(), err)
	}
	s.file = file
	s.ids = streams.NewIDs(d.deps.Now, d.deps.Instance, streams.Epoch)
	d.metrics.watch(s)
	return s, nil
}

// name names the shard's projection.
func (s *shard) name() string { return "dispatcher-" + s.number.String() }

func (s *shard) close() {
	s.metrics.forget(s)
	_ = s.file.Close()
}

// view reads the projection. Where nothing was ever folded there is nothing to
// read, and f is not called.
func (s *shard) view(f func(view) error) error {
	return s.file.View(func(tx *bolt.Tx) error {
		if tx.Bucket(metaBucket) == nil {
			return nil
		}
		return f(view{tx})
	})
}

// committed wakes what waits for the events that were just folded.
func (s *shard) committed(events []projection.Event) {
	select {
	case s.stored <- struct{}{}:
	default:
	}
	polled := s.polls.any()
	var accepted, scheduled bool
	woken := map[streams.AccountID]map[work]bool{}
	wake := func(a streams.AccountID, w work) {
		if woken[a] == nil {
			woken[a] = map[work]bool{}
		}
		woken[a][w] = true
	}
	for _, e := range events {
		switch event.Kind(e.Kind) {
		case event.KindScheduled:
			scheduled = true
		case event.KindEnqueued:
			accepted = true
			if a, lane, err := streams.ParseEnqueueSubject(e.Subject); polled && err == nil {
				wake(a, workIn(lane))
			}
		case event.KindLapsed, event.KindRequeued:
			scheduled = scheduled || event.Kind(e.Kind) == event.KindRequeued // perhaps before it was due
			if polled {
				_ = s.view(func(v view) error { return v.returned(e, wake) })
			}
			s.metrics.lapses(e)
		case event.KindLeased:
			s.leases.lookAgain()
		}
	}
	if scheduled {
		s.schedule.lookAgain()
	}
	if scheduled || accepted {
		s.validity.lookAgain()
	}
	for a, all := range woken {
		for w := range all {
			s.polls.wake(a, w)
		}
	}
}

// returned tells whom a lapse or a requeue gives something to do.
func (v view) returned(e projection.Event, tell func(streams.AccountID, work)) error {
	a, err := streams.ParseStatusSubject(e.Subject)
	if err != nil {
		return err
	}
	var messages []streams.MessageID
	switch event.Kind(e.Kind) {
	case event.KindLapsed:
		lapsed, err := event.Decode[event.Lapsed](e.Data)
		if err != nil {
			return err
		}
		for _, lapse := range lapsed.Messages {
			messages = append(messages, lapse.ID)
		}
	case event.KindRequeued:
		requeued, err := event.Decode[event.Requeued](e.Data)
		if err != nil {
			return err
		}
		for _, turn := range requeued.Messages {
			messages = append(messages, turn.ID)
		}
	}
	for _, m := range messages {
		r, _, err := v.record(a, m)
		if err != nil {
			return err
		}
		held, err := v.heldRecord(a, &r)
		switch {
		case err != nil:
			return err
		case r.waiting():
			tell(a, workIn(r.lane))
		case held && r.state == streams.Leased && r.device != 0:
			tell(a, work{target: r.device, class: streams.Text}) // it is listed to its phone again
		}
	}
	return nil
}
