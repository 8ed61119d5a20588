package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/retry"
)

// Decisions are messages of which each is made from all before it. One is
// stored only if its maker knew the last one, which is its fence: so two makers
// never decide from the same knowledge, however many there are.
type Decisions struct {
	Bus    *Bus
	Stream string
	// Subject is that of all these decisions. It may be a pattern.
	Subject string
	// Await returns once the maker knows all decisions up to a sequence: what
	// the next proposal is made from.
	Await func(ctx context.Context, seq uint64) error
	// Outrun is told of each proposal that was not stored because another
	// decision came first, or was under way. Nil: nobody is.
	Outrun func()
}

// decideAgain is the pause before a proposal, or a question, is sent again.
const decideAgain = 100 * time.Millisecond

// Decide stores what propose makes of all decisions that are known, and returns
// once Await has seen it. propose gives the decision, and the sequence of the
// last one that it knows, 0 if it knows none; a nil decision ends it with nothing
// stored. If another decision has come in between, Await learns of it and propose
// is asked again.
//
// One maker calls it at a time: no two of its proposals may be the same message.
// An error is that of propose, Await or the publish: with ErrNotStored nothing
// was stored, with ErrUnknownOutcome it may have been, or may be yet.
//
// These are the faults, each with one answer:
//   - The outcome is unknown. The same message is published again: both name the
//     same fence, so at most one is stored. Whichever decision is the first after
//     the fence says what became of it.
//   - Another decision is under way: some nodes have it, and too few. It may fail
//     yet, so nothing is concluded from it, and the proposal is made again.
//   - The fence has aged out of the stream, or out of what the maker knows. The
//     stream is asked again with what it said: nothing there, or its last one.
func (d Decisions) Decide(ctx context.Context, propose func() (decision *nats.Msg, last uint64, err error)) error {
	var unknown uint64 // the last decision, where the maker has forgotten it sooner than the stream
	var aged uint64    // a decision that the maker knows, and the stream no more
	for {
		decision, last, err := propose()
		if err != nil || decision == nil {
			return err
		}
		fence := last
		switch last {
		case 0:
			fence = unknown
		case aged:
			fence = 0
		}
		seq, ours, err := d.publish(ctx, decision, fence)
		if err != nil {
			return fmt.Errorf("publish to %s: %w", decision.Subject, err)
		}
		if !ours && d.Outrun != nil {
			d.Outrun()
		}
		if seq == 0 {
			unknown, aged = 0, last
			continue
		}
		if err := d.Await(ctx, seq); err != nil {
			return fmt.Errorf("learn of the last decision: %w", err)
		}
		if ours {
			return nil
		}
		unknown, aged = seq, 0
	}
}

// publish sends a decision until it knows which decision stands behind the
// fence: this one, which is ours, or another. It gives the fence itself while
// another is under way, and 0 if the fence has aged out and nothing has come.
func (d Decisions) publish(ctx context.Context, decision *nats.Msg, fence uint64) (seq uint64, ours bool, err error) {
	if d.Subject != decision.Subject {
		decision.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, d.Subject)
	}
	for unsure := false; ; {
		stored, err := d.Bus.PublishFenced(ctx, decision, fence)
		var wrong *WrongLast
		outrun := errors.As(err, &wrong)
		switch {
		case err == nil:
			return stored, true, nil
		case outrun && !wrong.UnderWay && (!unsure || wrong.Last == 0):
			return wrong.Last, false, nil
		case errors.Is(err, ErrUnknownOutcome):
			unsure = true
		case outrun && !wrong.UnderWay: // by ours that came in late, or by another's
		case outrun || unsure:
			// One is under way, perhaps ours, or nothing can be stored now.
			if clock.Sleep(ctx, decideAgain) != nil {
				return 0, false, gone(ctx, unsure, err)
			}
			if !unsure {
				return fence, false, nil
			}
		default:
			return 0, false, err
		}
		first, err := d.after(ctx, fence)
		if err != nil {
			return 0, false, gone(ctx, true, err)
		}
		if first != nil {
			return first.Sequence, same(first, decision), nil
		}
	}
}

// gone is the error where a caller has gone before the outcome was known. Only
// if a publish is unresolved may something be stored.
func gone(ctx context.Context, unsure bool, last error) error {
	if unsure {
		return fmt.Errorf("%w: %w: %s", ErrUnknownOutcome, ctx.Err(), last.Error())
	}
	return fmt.Errorf("%w: %w", ctx.Err(), last)
}

// after reads the first decision after a sequence, nil if there is none, and
// asks until it has an answer.
func (d Decisions) after(ctx context.Context, seq uint64) (first *jetstream.RawStreamMsg, err error) {
	err = retry.Do(ctx, decideAgain, nil, func() error {
		m, err := d.Bus.FirstAfter(ctx, d.Stream, d.Subject, seq)
		if errors.Is(err, ErrNoMessage) {
			return nil
		}
		first = m
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("learn what became of a decision: %w", err)
	}
	return first, nil
}

// same tells whether a stored message is the decision.
func same(stored *jetstream.RawStreamMsg, decision *nats.Msg) bool {
	for key, values := range decision.Header {
		if key != jetstream.ExpectedLastSubjSeqSubjHeader && !slices.Equal(stored.Header[key], values) {
			return false
		}
	}
	return stored.Subject == decision.Subject && bytes.Equal(stored.Data, decision.Data)
}
