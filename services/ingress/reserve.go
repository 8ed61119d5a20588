package ingress

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const (
	// Limit: an ingress reserves ids 1 min ahead of the clock, and so ids may be so far ahead of it after a crash.
	// Beyond it: with half of it left more are reserved, and nobody waits.
	// Used up by: time. Hurts: nobody. Test: TestReserve_BeforeTheyAreUsedUp.
	reserveAhead = time.Minute
	// Limit: where ids are ahead of the clock already, it reserves 1 s of them more, which is 4 million ids.
	// Beyond it: with half of it left more are reserved.
	// Used up by: senders, after the clock was set back. Hurts: nobody. Test: TestReserve_ClockWasAhead.
	reserveMore = time.Second
	// An event that ages out would reserve nothing any more, so the ids that last long are reserved again before.
	//
	// Limit: the event that reserves the ids that are given is at most 24 h old. Beyond it: it is stored again, beside
	// the requests.
	// Used up by: time. Hurts: nobody. Test: TestReserve_BeforeTheyAgeOut.
	reserveAgain = 24 * time.Hour
	// Limit: a message that has to wait for ids to be reserved waits 5 s. Beyond it: 503 `not_stored`.
	// Used up by: an engine that is slow or away. Hurts: senders of that shard. Test: TestReserve_Away.
	reserveWithin = 5 * time.Second
	reservePause  = 20 * time.Millisecond
)

// reserved gives the ids of a number. An id holds a time, and clocks step and differ, so a time alone does not make it
// unique. Before ids are given in a shard, an event in the shard's stream reserves all ids of the number up to a time for
// this process. Whoever has the number next reads that event, and goes on behind it. More ids are reserved while there
// still are some, so that requests hardly ever wait.
type reserved struct {
	bus    *bus.Bus
	now    func() time.Time
	by     string
	number int
	ids    *streams.IDs
	shards []shardIDs
	soon   chan streams.Shard // shards that need more ids
}

// shardIDs are what is reserved in a shard.
type shardIDs struct {
	lock  chan struct{} // holds a token while ids are being reserved
	asked atomic.Bool   // the shard is in soon, or ids are being reserved
	at    atomic.Pointer[stretch]
}

// stretch is the ids that this process may give: from one id, up to the one before another. It is empty if both are the
// same.
type stretch struct {
	from, to streams.MessageID
	soon     streams.MessageID // from here on more are reserved
	stored   time.Time
	last     uint64 // the newest event that reserves ids under the number
}

func newReserved(b *bus.Bus, now func() time.Time, by string, number int, shards streams.Shards) *reserved {
	r := &reserved{
		bus: b, now: now, by: by, number: number, ids: streams.NewIDs(now, number, streams.Epoch),
		shards: make([]shardIDs, shards), soon: make(chan streams.Shard, shards),
	}
	for i := range r.shards {
		r.shards[i].lock = make(chan struct{}, 1)
	}
	return r
}

// begin looks in all shards where ids begin. A shard that does not answer is asked again when it has a message.
func (r *reserved) begin(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reserveWithin)
	defer cancel()
	var shards sync.WaitGroup
	for i := range r.shards {
		shards.Go(func() { _, _ = r.open(ctx, streams.Shard(i)) })
	}
	shards.Wait()
}

// give fills ids with new ones of a shard. It is false if not all of them are reserved: then none may be used.
func (r *reserved) give(shard streams.Shard, now time.Time, ids []streams.MessageID) bool {
	for i := range ids {
		ids[i] = r.ids.Message()
	}
	own := &r.shards[shard]
	at := own.at.Load()
	last := ids[len(ids)-1]
	if at == nil || ids[0] < at.from || last >= at.to {
		return false
	}
	if at.used(last, now) && own.asked.CompareAndSwap(false, true) {
		r.soon <- shard // has room for all
	}
	return true
}

// used says that more ids are to be reserved.
func (at *stretch) used(id streams.MessageID, now time.Time) bool {
	return id >= at.soon || now.Sub(at.stored) > reserveAgain
}

// run reserves ids before they are used up, until ctx is done.
func (r *reserved) run(ctx context.Context) {
	var shards sync.WaitGroup
	defer shards.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case shard := <-r.soon:
			shards.Go(func() {
				defer r.shards[shard].asked.Store(false)
				_ = r.reserve(ctx, shard, r.ids.Message()) // if it fails, a request that needs ids tries again
			})
		}
	}
}

// reserve sees to it that ids after one are reserved. An error is ErrNotStored.
func (r *reserved) reserve(ctx context.Context, shard streams.Shard, id streams.MessageID) (err error) {
	ctx, cancel := context.WithTimeout(ctx, reserveWithin)
	defer cancel()
	defer func() {
		if err != nil && !errors.Is(err, bus.ErrFull) {
			// Whether the reservation is stored may be unknown. No message is stored, surely.
			err = fmt.Errorf("reserve ids: %w: %s", bus.ErrNotStored, err.Error())
		}
	}()
	own := &r.shards[shard]
	select {
	case own.lock <- struct{}{}:
		defer func() { <-own.lock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	at := own.at.Load()
	if at == nil {
		if at, err = r.open(ctx, shard); err != nil {
			return err
		}
	}
	if !at.used(id, r.now()) {
		return nil
	}
	for {
		next, err := r.further(ctx, shard, *at, id)
		if err == nil {
			own.at.Store(&next)
			return nil
		}
		var wrong *bus.WrongLast
		again := errors.As(err, &wrong) || errors.Is(err, bus.ErrUnknownOutcome) || bus.Away(err)
		if !again || errors.Is(err, bus.ErrFull) {
			return err
		}
		if clock.Sleep(ctx, reservePause) != nil {
			return err
		}
		if at, err = r.look(ctx, shard, *at); err != nil {
			return err
		}
		own.at.Store(at)
		if !at.used(id, r.now()) {
			return nil
		}
	}
}

// further stores that more ids are reserved than at says, unless another event came first.
func (r *reserved) further(ctx context.Context, shard streams.Shard, at stretch, id streams.MessageID) (stretch, error) {
	now := r.now()
	next := clock.Later(now, clock.Later(id.Time(), at.from.Time())) // the time of the next id
	before := clock.Later(clock.Later(now.Add(reserveAhead), next.Add(reserveMore)), at.to.Time()).UTC().Truncate(time.Millisecond)
	msg, err := event.Message(streams.ReservedSubject(shard, r.number), event.Reserved{By: r.by, Before: before})
	if err != nil {
		return at, err
	}
	if at.last, err = r.bus.PublishFenced(ctx, msg, at.last); err != nil {
		return at, err
	}
	at.to, at.soon, at.stored = streams.FirstIDAt(before), streams.FirstIDAt(before.Add(-before.Sub(next)/2)), now
	return at, nil
}

// look reads what has become of an attempt to reserve more than at says. If another process has reserved ids since, it
// has the number now: neither its ids nor those that were ours may be given here.
func (r *reserved) look(ctx context.Context, shard streams.Shard, at stretch) (*stretch, error) {
	last, said, err := r.last(ctx, shard)
	switch {
	case err != nil || last == at.last:
	case last == 0: // aged out
		at.last = 0
	case said.By == r.by:
		at.last, at.to = last, streams.FirstIDAt(said.Before)
		at.soon, at.stored = at.to, r.now()
	default:
		return r.behind(said.Before, last), nil
	}
	return &at, err
}

// last reads the newest event that reserves ids under the number, 0 if there is none.
func (r *reserved) last(ctx context.Context, shard streams.Shard) (last uint64, said event.Reserved, err error) {
	m, err := r.bus.LastForSubject(ctx, streams.EnqueueStream(shard), streams.ReservedSubject(shard, r.number))
	if errors.Is(err, bus.ErrNoMessage) {
		return 0, said, nil
	}
	if err != nil {
		return 0, said, err
	}
	said, err = event.Decode[event.Reserved](m.Data)
	return m.Sequence, said, err
}

// behind begins an empty stretch at a time.
func (r *reserved) behind(t time.Time, last uint64) *stretch {
	r.ids.NotBefore(t)
	from := streams.FirstIDAt(t)
	return &stretch{from: from, to: from, soon: from, last: last, stored: r.now()}
}

// open finds where the number's ids begin in a shard: behind all that anybody has reserved under it, and behind the
// newest event.
func (r *reserved) open(ctx context.Context, shard streams.Shard) (*stretch, error) {
	stream, err := r.bus.JS.Stream(ctx, streams.EnqueueStream(shard))
	if err != nil {
		return nil, err
	}
	floor := stream.CachedInfo().State.LastTime.Add(time.Millisecond)
	last, said, err := r.last(ctx, shard)
	if err == nil && last == 0 {
		said.Before, err = r.unreserved(ctx, shard, floor)
	}
	if err != nil {
		return nil, err
	}
	at := r.behind(clock.Later(floor, said.Before), last)
	r.shards[shard].at.Store(at)
	return at, nil
}

// unreserved finds a time behind the ids of the newest messages. It is needed if no ids were reserved under the number
// yet: an earlier version reserved none, and may have given ids by a clock that was ahead.
func (r *reserved) unreserved(ctx context.Context, shard streams.Shard, floor time.Time) (time.Time, error) {
	for _, subject := range streams.AcceptedSubjects(shard) {
		m, err := r.bus.LastForSubject(ctx, streams.EnqueueStream(shard), subject)
		if errors.Is(err, bus.ErrNoMessage) {
			continue
		}
		if err != nil {
			return floor, err
		}
		_, text, _ := strings.Cut(m.Header.Get(jetstream.MsgIDHeader), "/") // account, message
		text, _, _ = strings.Cut(text, "/")
		if id, err := streams.ParseMessageID(text); err == nil && id.Time().After(floor) {
			floor = id.Time().Add(reserveAhead)
		}
	}
	return floor, nil
}
