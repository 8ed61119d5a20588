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

// Decisions are messages that build on each other: each is made from all before
// it. A decision names the last one that its maker knew, which is its fence, and
// the engine stores it only if that is still the last one. So of two processes
// that decide from the same knowledge only one succeeds, and the other decides
// again from what it has learned.
type Decisions struct {
	Bus    *Bus
	Stream string
	// Subject is the subject of all these decisions. It may be a pattern.
	Subject string
	// Await returns once the maker knows all decisions up to a sequence, so that
	// the next proposal is made from them.
	Await func(ctx context.Context, seq uint64) error
	// Outrun is called for each proposal that was not stored because another
	// decision came first, or was under way. It may be nil.
	Outrun func()
}

// decideAgain is the pause before a proposal, or a question, is sent again.
const decideAgain = 100 * time.Millisecond

// Decide stores the decision that propose gives, and returns once Await has seen
// it. propose also gives the sequence of the last decision that it knows, 0 if it
// knows none. With a nil decision Decide returns, and nothing is stored. If
// another decision has come in between, Await learns of it and propose is called
// again.
//
// A maker calls it from one goroutine at a time, and never proposes the same
// message twice: a stored decision is recognised by its content. The error is
// that of propose, Await or the publish. With ErrNotStored nothing was stored;
// with ErrUnknownOutcome the decision may have been, or may still be.
//
// These faults can happen, and each has one answer:
//   - The outcome is unknown. The same message is published again. Both copies name
//     the same fence, so at most one is stored. The first decision after the fence
//     then tells the outcome: it is ours, or another's and ours will never be stored.
//   - Another decision is under way: some nodes have it, but not yet a majority. It
//     may still fail, so nothing follows from it, and propose is called again.
//   - The fence has aged out of the stream, or out of what the maker knows. The next
//     publish names what the engine has answered: no decision, or the last one.
func (d Decisions) Decide(ctx context.Context, propose func() (decision *nats.Msg, last uint64, err error)) error {
	var unknown uint64 // the last decision, where the stream still has it but the maker has forgotten it
	var aged uint64    // the last decision, where the maker knows it but the stream no longer has it
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

// publish sends a decision until it is known which one follows the fence: this
// one (ours), or another. It returns the fence itself while another is under way,
// and 0 if the fence has aged out and there is no decision at all.
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
		case outrun && !wrong.UnderWay: // by our own earlier copy that came in late, or by another's
		case outrun || unsure:
			// A decision is under way, perhaps ours, or nothing can be stored now.
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

// gone is the error of a caller whose context ends before the outcome is known.
// Something may be stored only if a publish is unresolved (unsure).
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

// same reports whether a stored message is the decision.
func same(stored *jetstream.RawStreamMsg, decision *nats.Msg) bool {
	for key, values := range decision.Header {
		if key != jetstream.ExpectedLastSubjSeqSubjHeader && !slices.Equal(stored.Header[key], values) {
			return false
		}
	}
	return stored.Subject == decision.Subject && bytes.Equal(stored.Data, decision.Data)
}
