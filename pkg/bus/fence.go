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

// Fence keeps out of a stream what its owner has sent and nobody knows when it arrives. A message expects the last
// message of a subject that is the owner's; once there is another one, the engine refuses whatever still lies in a
// buffer. Somebody else may put it there too, and so refuses all that the owner has under way.
type Fence struct {
	bus    *Bus
	stream string

	turn   chan struct{} // who has put something in works on what follows
	move   *nats.Msg     // what a move stores; nil: the fence stands nowhere
	unsure bool          // a move may still come in that expects the last one

	at atomic.Pointer[position]
}

// position is where a fence stands. Nobody but the owner has moved it between first and last, so what expected any of
// these may expect the last one.
type position struct {
	first, last uint64
	moved       time.Time

	onSubject, onLast []string // the same as values of headers, which nobody changes
}

// NewFence makes a fence that stands nowhere.
func NewFence(b *Bus, stream string) *Fence {
	return &Fence{bus: b, stream: stream, turn: make(chan struct{}, 1)}
}

// ErrFenced says that another has moved the fence since messages were made to expect it.
var ErrFenced = fmt.Errorf("the fence has moved: %w", ErrNotStored)

var errNowhere = fmt.Errorf("the fence stands nowhere: %w", ErrNotStored)

const (
	// moveWithin is how long a move is tried. Used up by an engine that is slow: it is tried again, and what
	// expects it waits.
	moveWithin = 5 * time.Second
	movePause  = 20 * time.Millisecond
	// refreshAfter is when a fence is moved that nothing else has moved: long before its message ages out.
	refreshAfter = 24 * time.Hour
	// refreshBehind is how many messages may come before it is moved again: the engine reads the fence's last message
	// with every commit, and has a stream's newest ones in memory. Used up by every busy stream: the fence is
	// moved, and nobody waits.
	refreshBehind = 10_000
)

// Use moves the fence to the subject of move, which is what every move stores: no other owner may store the same. What
// expected the fence before is refused from then on, as is all that an earlier owner of the subject has under way. If
// it fails, Expect tries again.
func (f *Fence) Use(ctx context.Context, move *nats.Msg) error {
	f.turn <- struct{}{}
	f.move, f.unsure = move, false
	f.at.Store(nil)
	<-f.turn
	_, err := f.Expect(ctx)
	return err
}

// Expected is what a message expects of a fence.
type Expected struct{ at *position }

// Put writes it into a message's header.
func (e Expected) Put(m *nats.Msg) {
	m.Header[jetstream.ExpectedLastSubjSeqSubjHeader] = e.at.onSubject
	m.Header[jetstream.ExpectedLastSubjSeqHeader] = e.at.onLast
}

// Expect gives what messages expect that are refused if anybody but the owner moves the fence from now on. An error is
// ErrNotStored, or ErrUnknownOutcome of a move.
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

// Move refuses from now on whatever has been sent and not arrived. What expects the fence and is sent later is not
// refused, unless another has moved it.
func (f *Fence) Move(ctx context.Context) error {
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	return f.advance(ctx)
}

// refresh moves a fence that stands far behind the stream's newest message, or has stood for long.
func (f *Fence) refresh(ctx context.Context, newest uint64) {
	if at := f.at.Load(); at != nil && (newest > at.last+refreshBehind || time.Since(at.moved) > refreshAfter) {
		_ = f.Move(ctx) // the next commit tries again
	}
}

// check finds out whether another has moved the fence, and moves it then.
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

// advance moves the fence: from where it is known to stand, or else from wherever it does. A move that comes in late
// finds another one, and is refused.
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
			default: // another was there, or the last one has aged out
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

// put notes where the fence stands now.
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

// read asks the stream where the fence stands, 0 if nowhere, and whether the last move is the owner's.
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

// holds says whether what expects a message of the fence may still be stored.
func (at *position) holds(expects uint64) bool {
	return at != nil && at.first <= expects && expects <= at.last
}

// guards says whether the submission, as it was sent last, expects this fence. The owner may use another subject since then:
// the one before is not the owner's to move any more, and what expects it may come in as long as nobody else does.
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

// expecting finds the message of a request that expects something of a fence.
func expecting(msgs []*nats.Msg) (m *nats.Msg, last uint64) {
	for _, m := range msgs {
		if m.Header[jetstream.ExpectedLastSubjSeqSubjHeader] != nil {
			last, _ := strconv.ParseUint(m.Header.Get(jetstream.ExpectedLastSubjSeqHeader), 10, 64) // 0: nobody's
			return m, last
		}
	}
	return nil, 0
}
