package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// resolve finds out the outcome of fenced submissions whose answer is missing, and answers requests whose outcome is
// known now. What it returns may be sent. It is not ok where the fence could not be moved or the stream not be read: the
// outcomes are still unknown then.
//
// No fenced submission is sent again before this. Once the fence has moved, the engine rejects the earlier attempts that
// still lie in a buffer: what is not in the stream by then never will be.
func (g *groupCommit) resolve(ctx context.Context, todo []*submission, floor uint64) (left []*submission, stored int, ok bool) {
	if g.fence == nil {
		return todo, 0, true
	}
	moved, ok := false, true
	for _, s := range todo {
		if !s.uncertain || !s.fenced() {
			left = append(left, g.current(s)...)
			continue
		}
		if !moved && g.fence.Move(ctx) != nil {
			return todo, stored, false
		}
		moved = true
		first, err := s.find(ctx, g.bus, g.stream, floor)
		switch {
		case err != nil && !errors.Is(err, errNoID):
			left, ok = append(left, s), false
		case err != nil:
			s.finish(0, fmt.Errorf("%w: %w", ErrUnknownOutcome, err))
		case first > 0:
			s.finish(first, nil)
			stored += s.messages
			g.floor = max(g.floor, first+uint64(s.messages)-1)
		case !g.fence.guards(s):
			s.finish(0, fmt.Errorf("%w: the fence that it expects is another owner's now", ErrUnknownOutcome))
		default:
			s.uncertain = false
			left = append(left, g.current(s)...)
		}
	}
	return left, stored, ok
}

// current answers the requests of a submission that expect a position of the fence from before another process has moved
// it, and returns a submission of the rest.
func (g *groupCommit) current(s *submission) []*submission {
	at := g.fence.at.Load()
	stale := 0
	for _, q := range s.reqs {
		if q.fenced != nil && !at.holds(q.expects) {
			stale++
		}
	}
	if stale == 0 {
		return []*submission{s}
	}
	var left []*request
	for _, q := range s.reqs {
		if q.fenced != nil && !at.holds(q.expects) {
			q.done <- outcome{err: ErrFenced}
			continue
		}
		left = append(left, q)
	}
	if len(left) == 0 {
		return nil
	}
	return []*submission{newSubmission(left)}
}

// fenced reports whether the submission expects a position of a fence.
func (s *submission) fenced() bool {
	for _, q := range s.reqs {
		if q.fenced != nil {
			return true
		}
	}
	return false
}

// expect makes the submission expect the present position of the fence. One message of an atomic batch is enough, as a
// batch is stored whole or not at all: each header costs the engine a comparison and is stored.
func (s *submission) expect(f *Fence) error {
	if f == nil || !s.fenced() {
		return nil
	}
	at := f.at.Load()
	if at == nil {
		return errNowhere
	}
	once := false
	s.expects = at.last
	for _, q := range s.reqs {
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

// outrun reports whether a submission was rejected because of the fence, and so may be sent again: the fence has moved,
// or another message that expects it is under way.
func (g *groupCommit) outrun(ctx context.Context, s *submission, err error) bool {
	var wrong *WrongLast
	if g.fence == nil || !s.fenced() || !errors.As(err, &wrong) {
		return false
	}
	moved, checkErr := g.fence.check(ctx)
	if at := g.fence.at.Load(); moved || checkErr != nil || at == nil || at.last != s.expects {
		return true
	}
	// On a cluster a fence lets one commit pass at a time.
	if wrong.UnderWay && s.outrun < maxTries {
		s.outrun++
		g.alone = true
		return true
	}
	return false
}

// fenceUnknown notes that a submission is given up that may still be stored.
func (g *groupCommit) fenceUnknown(todo []*submission) {
	for _, s := range todo {
		if g.fence != nil && s.uncertain && s.fenced() {
			g.dirty = true
		}
	}
}

// clean moves the fence if a submission was given up that may still be stored. Its caller was told that the outcome is
// unknown; after this it no longer changes.
func (g *groupCommit) clean(ctx context.Context) {
	if g.dirty && g.fence.Move(ctx) == nil {
		g.dirty = false
	}
}
