package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// settle decides what became of the units whose answer is missing, and answers what may not be stored any more. What it
// gives back may be sent; ok is false where the fence could not be moved, so that nothing is known yet.
//
// Nothing is sent twice before this: whatever lies in a buffer still is refused once the fence has moved, and what is
// not in the stream by then never will be.
func (r *round) settle(ctx context.Context, todo []*unit, floor uint64) (left []*unit, stored int, ok bool) {
	if r.fence == nil {
		return todo, 0, true
	}
	moved, ok := false, true
	for _, u := range todo {
		if !u.uncertain || !u.fenced() {
			left = append(left, r.current(u)...)
			continue
		}
		if !moved && r.fence.Move(ctx) != nil {
			return todo, stored, false
		}
		moved = true
		first, err := u.find(ctx, r.bus, r.stream, floor)
		switch {
		case err != nil && !errors.Is(err, errNoID):
			left, ok = append(left, u), false
		case err != nil:
			u.finish(0, fmt.Errorf("%w: %w", ErrUnknownOutcome, err))
		case first > 0:
			u.finish(first, nil)
			stored += u.messages
			r.floor = max(r.floor, first+uint64(u.messages)-1)
		case !r.fence.guards(u):
			u.finish(0, fmt.Errorf("%w: the fence that it expects is another owner's now", ErrUnknownOutcome))
		default:
			u.uncertain = false
			left = append(left, r.current(u)...)
		}
	}
	return left, stored, ok
}

// current answers the requests of a unit that expect a fence which another has moved, and gives what is left.
func (r *round) current(u *unit) []*unit {
	at := r.fence.at.Load()
	stale := 0
	for _, q := range u.reqs {
		if q.fenced != nil && !at.holds(q.expects) {
			stale++
		}
	}
	if stale == 0 {
		return []*unit{u}
	}
	var left []*request
	for _, q := range u.reqs {
		if q.fenced != nil && !at.holds(q.expects) {
			q.done <- outcome{err: ErrFenced}
			continue
		}
		left = append(left, q)
	}
	if len(left) == 0 {
		return nil
	}
	return []*unit{newUnit(left)}
}

// fenced says whether the unit expects something of a fence.
func (u *unit) fenced() bool {
	for _, q := range u.reqs {
		if q.fenced != nil {
			return true
		}
	}
	return false
}

// expect makes the unit expect where the fence stands now. In an atomic batch one message is enough: each costs the
// engine a comparison, and the log its header.
func (u *unit) expect(f *Fence) error {
	if f == nil || !u.fenced() {
		return nil
	}
	at := f.at.Load()
	if at == nil {
		return errNowhere
	}
	once := false
	u.expects = at.last
	for _, q := range u.reqs {
		switch {
		case q.fenced == nil:
		case once:
			delete(q.fenced.Header, jetstream.ExpectedLastSubjSeqHeader)
			delete(q.fenced.Header, jetstream.ExpectedLastSubjSeqSubjHeader)
		default:
			once = true
			q.fenced.Header[jetstream.ExpectedLastSubjSeqHeader] = at.onLast
			q.fenced.Header[jetstream.ExpectedLastSubjSeqSubjHeader] = at.onSubject
		}
	}
	return nil
}

// outrun says of a refusal for a wrong last sequence whether it is the fence's: it has moved, or another of its messages
// is under way.
func (r *round) outrun(ctx context.Context, u *unit, err error) bool {
	var wrong *WrongLast
	if r.fence == nil || !u.fenced() || !errors.As(err, &wrong) {
		return false
	}
	moved, checkErr := r.fence.check(ctx)
	if at := r.fence.at.Load(); moved || checkErr != nil || at == nil || at.last != u.expects {
		return true
	}
	// On several nodes a fence lets one commit pass at a time.
	if wrong.UnderWay && u.outrun < maxTries {
		u.outrun++
		r.alone = true
		return true
	}
	return false
}

// fenceUnknown says that commits were given up that may still come in.
func (r *round) fenceUnknown(todo []*unit) {
	for _, u := range todo {
		if r.fence != nil && u.uncertain && u.fenced() {
			r.dirty = true
		}
	}
}

// clean moves the fence before anything that was given up is stored late.
func (r *round) clean(ctx context.Context) {
	if r.dirty && r.fence.Move(ctx) == nil {
		r.dirty = false
	}
}
