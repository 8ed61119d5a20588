package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// attemptTimeout is longer than any commit of a disk that works. Used up
	// by an engine that is slow: what waits for the commit behind it waits
	// too.
	attemptTimeout  = 5 * time.Second
	shortestAttempt = time.Second
	// retryFor is how long an unknown outcome is retried. Message ids are
	// remembered longer by the streams. Used up by an engine that is away:
	// everybody who stores in this stream waits. No account can.
	retryFor   = 20 * time.Second
	retryPause = 100 * time.Millisecond
	// maxTries is after how many temporary refusals a shared batch is suspected
	// of holding a message that will never go in.
	maxTries = 3
	// maxBatches leaves room for others under the engine's 50 open batches a stream.
	maxBatches = 16
)

// round is one group commit after the other, and what they share.
type round struct {
	bus         *Bus
	stream      string
	now         func() time.Time
	inbox       string // answers come to inbox + token
	batchPrefix string

	fence *Fence // nil: none
	dirty bool   // what was given up may come in until the fence has moved
	alone bool   // one unit under way at a time, since the fence lets no more pass

	sub     *nats.Subscription
	answers chan *nats.Msg
	lost    chan nats.Status // the connection, and with it the answers
	timer   *time.Timer

	slow     bool             // a leader is there and has what it was told, in this round
	attempts uint64           // given tokens
	sent     map[string]*unit // by token, of this round
	floor    uint64           // a sequence that the stream had before this round
	wire     nats.Msg         // the message being sent
}

func (r *round) open() error {
	r.inbox = r.bus.Conn.NewInbox() + "."
	sub, err := r.bus.Conn.ChanSubscribe(r.inbox+"*", r.answers)
	if err != nil {
		return err
	}
	r.sub = sub
	r.lost = r.bus.Conn.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	r.timer = time.NewTimer(0)
	return nil
}

func (r *round) close() {
	r.timer.Stop()
	r.bus.Conn.RemoveStatusListener(r.lost)
	r.sub.Unsubscribe() // fails only if the connection is closed, which ends it too
}

// commit stores the requests, answers each, and returns how many messages it
// stored.
func (r *round) commit(ctx context.Context, reqs []*request, threshold int) (stored int) {
	if r.floor == 0 {
		r.floor = r.lastSequence(ctx)
	}
	floor := r.floor
	deadline, patience := r.now().Add(retryFor), r.bus.patience().commit
	r.slow = false
	if r.fence != nil {
		r.fence.refresh(ctx, r.floor)
	}
	todo := r.plan(reqs, threshold)
	for len(todo) > 0 {
		left, found, known := r.settle(ctx, todo, floor)
		stored += found
		if todo = left; !known {
			if r.pause(ctx, deadline) {
				continue
			}
			r.giveUp(todo)
			break
		}
		wave, rest := nextWave(todo)
		if r.alone && len(todo) > 0 {
			wave, rest = todo[:1], todo[1:]
		}
		r.forgetLost()
		for _, u := range wave {
			r.attempt(u)
		}
		r.await(wave, min(patience, max(deadline.Sub(r.now()), shortestAttempt)))
		if r.slow { // what is told again is sent again
			patience = min(2*patience, attemptTimeout)
		}

		var again []*unit
		pause := false
		for _, u := range wave {
			first, next := r.judge(ctx, u, floor)
			switch next {
			case done:
				if first > 0 {
					stored += u.messages
					r.floor = max(r.floor, first+uint64(u.messages)-1)
				}
			case split:
				half := len(u.reqs) / 2
				again = append(again, r.plan(u.reqs[:half], threshold)...)
				again = append(again, r.plan(u.reqs[half:], threshold)...)
			case retry:
				again = append(again, u)
				pause = true
			}
		}
		todo = append(again, rest...)
		if pause && !r.pause(ctx, deadline) {
			r.giveUp(todo)
			break
		}
	}
	clear(r.sent)
	return stored
}

// plan makes one atomic batch of what waits, or a unit of each request when
// that costs less.
func (r *round) plan(reqs []*request, threshold int) []*unit {
	all := newUnit(reqs)
	if len(reqs) == 1 || all.messages >= threshold || r.alone {
		return []*unit{all}
	}
	units := make([]*unit, len(reqs))
	for i := range reqs {
		units[i] = newUnit(reqs[i : i+1])
	}
	return units
}

// nextWave is what may be under way at a time.
func nextWave(todo []*unit) (wave, rest []*unit) {
	batches := 0
	for i, u := range todo {
		if u.messages > 1 {
			if batches++; batches > maxBatches {
				return todo[:i], todo[i:]
			}
		}
	}
	return todo, nil
}

func (r *round) attempt(u *unit) {
	r.attempts++
	u.token = strconv.FormatUint(r.attempts, 36)
	u.answer, u.err = ack{}, ErrUnknownOutcome
	r.sent[u.token] = u
	err := u.expect(r.fence)
	if err == nil {
		err = u.send(r)
	}
	u.waiting = err == nil
	if neverArrived(err) || errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, errCutShort) || errors.Is(err, ErrNotStored) {
		u.err = fmt.Errorf("%w: %w", ErrNotStored, err)
	}
}

// await reads answers until the wave has all of them, or until there is no use
// in waiting longer.
func (r *round) await(wave []*unit, timeout time.Duration) {
	missing := 0
	for _, u := range wave {
		if u.waiting {
			missing++
		}
	}
	r.timer.Reset(timeout)
	for missing > 0 {
		select {
		case m := <-r.answers:
			u := r.sent[strings.TrimPrefix(m.Subject, r.inbox)]
			if u == nil || !u.waiting {
				continue
			}
			a, err := parseAck(m)
			late := !strings.HasSuffix(m.Subject, "."+u.token)
			if late && (err != nil || a.refusal() != nil) {
				continue // the attempt under way decides
			}
			if u.uncertain && err == nil && a.underWay() {
				r.slow = true
				continue // the leader has an earlier attempt, and answers that one or the next
			}
			u.waiting, u.answer, u.err = false, a, err
			missing--
		case <-r.timer.C:
			return
		case <-r.lost:
			return
		}
	}
}

// next is what becomes of a unit after an attempt.
type next int

const (
	done next = iota
	retry
	split
)

// judge answers the unit's requests if their outcome is known; first is the
// sequence of its first message if it is stored.
func (r *round) judge(ctx context.Context, u *unit, floor uint64) (first uint64, n next) {
	err := u.err
	if err == nil {
		err = u.answer.refusal()
	}
	if err == nil {
		first = u.answer.Seq - uint64(u.messages) + 1
		u.finish(first, nil)
		return first, done
	}
	if errors.Is(err, ErrUnknownOutcome) {
		u.uncertain, u.err = true, err
		return 0, retry
	}
	u.err = err
	if r.outrun(ctx, u, err) {
		return 0, retry
	}
	if u.answer.Error == nil && !u.answer.Duplicate && !permanent(err) {
		return 0, retry // nobody has seen it
	}
	if u.answer.passing() && (u.uncertain || len(u.reqs) == 1 || len(u.batches) < maxTries) {
		return 0, retry
	}
	if u.uncertain {
		first, lookErr := u.find(ctx, r.bus, r.stream, floor)
		switch {
		case lookErr == nil && first > 0:
			u.finish(first, nil)
			return first, done
		case lookErr == nil:
			u.uncertain = false
		case errors.Is(lookErr, errNoID):
			u.err = fmt.Errorf("%w: refused on a repeat: %w", ErrUnknownOutcome, err)
		default:
			return 0, retry
		}
	}
	if len(u.reqs) > 1 && !errors.Is(err, ErrFull) {
		return 0, split
	}
	u.finish(0, u.err)
	return 0, done
}

// pause waits before a retry; false when there is none.
func (r *round) pause(ctx context.Context, deadline time.Time) bool {
	if !r.now().Before(deadline) {
		return false
	}
	r.timer.Reset(retryPause)
	select {
	case <-r.timer.C:
	case <-ctx.Done():
	case <-r.lost:
	}
	return ctx.Err() == nil && !r.bus.Conn.IsClosed()
}

// forgetLost drops what happened to the connection before this attempt.
func (r *round) forgetLost() {
	for {
		select {
		case <-r.lost:
		default:
			return
		}
	}
}

// giveUp answers units that are not going to be tried again.
func (r *round) giveUp(units []*unit) {
	r.fenceUnknown(units)
	for _, u := range units {
		err := u.err
		switch {
		case u.uncertain:
			err = ErrUnknownOutcome
		case err == nil:
			err = ErrNotStored
		}
		u.finish(0, err)
	}
}

// lastSequence is the stream's newest, 0 if it does not say.
func (r *round) lastSequence(ctx context.Context) uint64 {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	stream, err := r.bus.JS.Stream(ctx, r.stream)
	if err != nil {
		return 0
	}
	info := stream.CachedInfo()
	r.alone = r.fence != nil && info.Config.Replicas > 1
	return info.State.LastSeq
}
