package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/clock"
)

// Fence makes sure that what its owner has sent can no longer be stored, even if it still lies in a buffer somewhere.
//
// The fence is the last message of a subject. What the owner stores names it, by the headers of Expect, and the engine
// stores that only while the named message is still the last of its subject. To move the fence is to store one more
// message there. From then on, the engine rejects everything that names an earlier one. So after a commit with an
// unknown outcome the owner moves the fence and reads the stream: what is not in it by then never will be, and may be
// sent again.
//
// Another process may move the fence too. It takes over that way: nothing that the owner has under way is stored after
// that.
type Fence struct {
	bus    *Bus
	stream string

	turn   chan struct{} // a lock: whoever has put a token in may use move and unsure
	move   *nats.Msg     // what a move stores; nil: the fence is nowhere yet
	unsure bool          // a move with an unknown outcome may still be stored behind the last one

	at atomic.Pointer[position]
}

// position is where a fence is. Only the owner has moved it between first and last, so what was made to expect any of
// these may be sent again with the last one.
type position struct {
	first, last uint64
	moved       time.Time

	onSubject, onLast []string // subject and last, as values of headers; nobody changes these
}

// NewFence makes a fence without a position: see Use.
func NewFence(b *Bus, stream string) *Fence {
	return &Fence{bus: b, stream: stream, turn: make(chan struct{}, 1)}
}

// ErrFenced says that another process has moved the fence since a message was made to expect it.
var ErrFenced = fmt.Errorf("the fence has moved: %w", ErrNotStored)

var errNowhere = fmt.Errorf("the fence stands nowhere: %w", ErrNotStored)

const (
	// Limit: a move of a fence is tried for 5 s, and then by the next message again. Beyond it: 503 not_stored for
	// messages that come before the fence has moved.
	// Used up by: an engine that is slow. Hurts: all accounts that store in this stream. Test:
	// TestFence_MovesAfterAnUnknownOutcome.
	moveWithin = 5 * time.Second
	movePause  = 20 * time.Millisecond
	// refreshAfter is how long a fence may stay where it is: its message must not age out of the stream.
	refreshAfter = 24 * time.Hour
	// The engine reads the fence's message with every commit, and has only the newest ones of a stream in memory.
	//
	// Limit: a fence is at most 10,000 messages behind the newest, and not older than a day. Beyond it: the commit that
	// finds that moves the fence first.
	// Used up by: every busy stream. Hurts: nobody: that commit takes a little longer. Test: TestFence_KeepsUp.
	refreshBehind = 10_000
)

// Use moves the fence to the subject of move, and makes move the message that every move stores. No other owner may
// store the same one: a move is recognised by its content. From then on the engine rejects what expected the fence
// before, and all that an earlier owner of the subject has under way. If it fails, Expect tries again.
func (f *Fence) Use(ctx context.Context, move *nats.Msg) error {
	f.turn <- struct{}{}
	f.move, f.unsure = move, false
	f.at.Store(nil)
	<-f.turn
	_, err := f.Expect(ctx)
	return err
}

// Expected is the position of a fence that a message expects.
type Expected struct{ at *position }

// Put writes the expectation into the headers of a message.
func (e Expected) Put(m *nats.Msg) {
	m.Header[jetstream.ExpectedLastSubjSeqSubjHeader] = e.at.onSubject
	m.Header[jetstream.ExpectedLastSubjSeqHeader] = e.at.onLast
}

// Expect gives the present position of the fence. A message that expects it is stored only if nobody but the owner has
// moved the fence until then. The error is ErrNotStored, or ErrUnknownOutcome where that of a move is unknown.
func (f *Fence) Expect(ctx context.Context) (Expected, error) {
	at := f.at.Load()
	if at == nil {
		select {
		case f.turn <- struct{}{}:
			defer func() { <-f.turn }()
		case <-ctx.Done():
			return Expected{}, fmt.Errorf("%w: %w", ErrNotStored, ctx.Err())
		}
		if at = f.at.Load(); at == nil {
			if err := f.advance(ctx); err != nil {
				return Expected{}, err
			}
			at = f.at.Load()
		}
	}
	return Expected{at}, nil
}

// Move moves the fence: whatever has been sent and is not stored yet never will be. A committer sends later messages
// with the new position, unless another process has moved the fence.
func (f *Fence) Move(ctx context.Context) error {
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	return f.advance(ctx)
}

// refresh moves a fence that is far behind the stream's newest message, or has not moved for long.
func (f *Fence) refresh(ctx context.Context, newest uint64) {
	if at := f.at.Load(); at != nil && (newest > at.last+refreshBehind || time.Since(at.moved) > refreshAfter) {
		_ = f.Move(ctx) // the next commit tries again
	}
}

// check finds out whether another process has moved the fence, and moves it again if so.
func (f *Fence) check(ctx context.Context) (moved bool, err error) {
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	at := f.at.Load()
	if at == nil {
		return true, nil
	}
	last, ours, err := f.read(ctx)
	switch {
	case err != nil:
		return false, err
	case last == at.last:
		return false, nil
	case ours && f.unsure:
		f.put(last)
		return false, nil
	}
	f.at.Store(nil)
	return true, f.advance(ctx)
}

// advance moves the fence, from its known position or else from wherever it is. A move names the one before, as every
// fenced message does: one that arrives late finds a newer one, and is rejected.
func (f *Fence) advance(ctx context.Context) error {
	if f.move == nil {
		return errNowhere
	}
	ctx, cancel := context.WithTimeout(ctx, moveWithin)
	defer cancel()
	var last uint64
	if at := f.at.Load(); at != nil {
		last = at.last
	} else if from, _, err := f.read(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	} else {
		last = from
	}
	for {
		seq, err := f.bus.PublishFenced(ctx, f.move, last)
		var wrong *WrongLast
		switch {
		case err == nil:
			f.put(seq)
			return nil
		case errors.As(err, &wrong) && !wrong.UnderWay:
			now, ours, readErr := f.read(ctx)
			switch {
			case readErr != nil:
				err = errors.Join(err, readErr)
			case ours && f.unsure && now > last:
				f.put(now)
				return nil
			default: // another process has moved it, or its message has aged out
				f.at.Store(nil)
				f.unsure, last = false, now
				continue
			}
		case errors.Is(err, ErrUnknownOutcome):
			f.unsure = true
		case errors.As(err, &wrong), Away(err): // another is under way
		default:
			return err
		}
		if clock.Sleep(ctx, movePause) != nil {
			return fmt.Errorf("move the fence: %w", err)
		}
	}
}

// put notes the new position of the fence.
func (f *Fence) put(last uint64) {
	next := &position{
		first: last, last: last, moved: time.Now(),
		onSubject: []string{f.move.Subject}, onLast: []string{strconv.FormatUint(last, 10)},
	}
	if at := f.at.Load(); at != nil {
		next.first = at.first
	}
	f.unsure = false
	f.at.Store(next)
}

// read asks the stream where the fence is, 0 if nowhere, and whether the last move is the owner's.
func (f *Fence) read(ctx context.Context) (last uint64, ours bool, err error) {
	m, err := f.bus.LastForSubject(ctx, f.stream, f.move.Subject)
	if errors.Is(err, ErrNoMessage) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	return m.Sequence, bytes.Equal(m.Data, f.move.Data), nil
}

// holds reports whether a message that was made to expect a position may still be sent: only the owner has moved since.
func (at *position) holds(expects uint64) bool {
	return at != nil && at.first <= expects && expects <= at.last
}

// guards reports whether the submission, as it was sent last, expects this fence on its present subject. The owner may
// have begun to use another subject since. It cannot move the fence on the old one, so what expects that may still be
// stored until somebody else moves it.
func (f *Fence) guards(s *submission) bool {
	at := f.at.Load()
	for _, q := range s.reqs {
		if q.fenced != nil {
			if on := q.fenced.Header[jetstream.ExpectedLastSubjSeqSubjHeader]; on != nil {
				return at != nil && on[0] == at.onSubject[0]
			}
		}
	}
	return true
}

// expecting finds the message of a request that expects a position of a fence.
func expecting(msgs []*nats.Msg) (m *nats.Msg, last uint64) {
	for _, m := range msgs {
		if m.Header[jetstream.ExpectedLastSubjSeqSubjHeader] != nil {
			last, _ := strconv.ParseUint(m.Header.Get(jetstream.ExpectedLastSubjSeqHeader), 10, 64) // 0: nobody's
			return m, last
		}
	}
	return nil, 0
}
