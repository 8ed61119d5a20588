package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A cluster that has lost a leader has a new one within that time.
//
// Limit: the engine has 10 s to answer a decision. Beyond it: its maker looks
// whether it was stored.
// Used up by: an engine that is away. Hurts: all accounts of the shard: their
// decisions wait. Test: TestPublishFenced_LostAnswerIsUnknown.
const fencedTimeout = 10 * time.Second

// PublishFenced stores one message if the last sequence of its subject is
// lastSubjectSeq, and returns the sequence of the message. If it is another one,
// the error is *WrongLast. After ErrUnknownOutcome the caller may look at the
// stream, and may publish again with the same lastSubjectSeq: at most one of the
// two is stored.
func (b *Bus) PublishFenced(ctx context.Context, msg *nats.Msg, lastSubjectSeq uint64) (uint64, error) {
	fenced := nats.Msg{Subject: msg.Subject, Data: msg.Data, Header: make(nats.Header, len(msg.Header)+1)}
	maps.Copy(fenced.Header, msg.Header)
	fenced.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(lastSubjectSeq, 10)}

	if b.Conn.IsClosed() || ctx.Err() != nil {
		return 0, fmt.Errorf("publish to %s: %w: %w", msg.Subject, ErrNotStored, errors.Join(nats.ErrConnectionClosed, ctx.Err()))
	}
	if err := b.mayStore(); err != nil {
		return 0, fmt.Errorf("publish to %s: %w", msg.Subject, err)
	}
	ctx, cancel := context.WithTimeout(ctx, b.patience().fenced)
	defer cancel()
	answer, err := b.Conn.RequestMsgWithContext(ctx, &fenced)
	if err != nil {
		return 0, fmt.Errorf("publish to %s: %w", msg.Subject, sendError(err))
	}
	a, err := parseAck(answer)
	if err == nil {
		err = a.refusal()
	}
	if err != nil {
		return 0, fmt.Errorf("publish to %s: %w", msg.Subject, err)
	}
	return a.Seq, nil
}

// sendError makes ErrNotStored of an error if the engine surely did not get the
// message, and else ErrUnknownOutcome.
func sendError(err error) error {
	if neverArrived(err) {
		return fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// neverArrived reports whether the engine surely never got a publish that failed
// with err. ErrConnectionClosed does not mean that: it also ends a request under
// way.
func neverArrived(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) ||
		errors.Is(err, nats.ErrMaxPayload) ||
		errors.Is(err, nats.ErrBadSubject)
}

// The error codes of the engine that are treated differently.
const (
	codeAccountResources  = 10002
	codeInsufficient      = 10023
	codeMemoryResources   = 10028
	codeStorageResources  = 10047
	codeWrongLast         = 10071
	codeStoreFailed       = 10077
	codeMaxStreamBytes    = 10122
	codeClusterNotReady   = 10008
	codeStreamOffline     = 10118
	codeTooManyRequests   = 10167
	codeDuplicateInFlight = 10158
	codeWrongLastConstant = 10164
	codeIncompleteBatch   = 10176
	codeDuplicateInBatch  = 10201
	codeTooManyBatches    = 10210
)

// ack is the engine's answer to a publish.
type ack struct {
	Error     *jetstream.APIError `json:"error"`
	Seq       uint64              `json:"seq"`
	Duplicate bool                `json:"duplicate"`
	Count     int                 `json:"count"`
}

// errNoResponders is the answer where no stream has the subject.
var errNoResponders = fmt.Errorf("%w: %w", ErrNotStored, nats.ErrNoResponders)

func parseAck(m *nats.Msg) (ack, error) {
	var a ack
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return a, errNoResponders
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return a, fmt.Errorf("%w: read answer: %w", ErrUnknownOutcome, err)
	}
	if a.Error == nil && a.Seq == 0 {
		return a, fmt.Errorf("%w: answer names no sequence", ErrUnknownOutcome)
	}
	return a, nil
}

// refusal gives the reason why nothing was stored, nil if it was.
func (a ack) refusal() error {
	if a.Error == nil {
		if a.Duplicate {
			return ErrDuplicate
		}
		return nil
	}
	switch a.Error.ErrorCode {
	case codeWrongLast:
		return &WrongLast{Last: lastNamed(a.Error.Description)}
	case codeWrongLastConstant:
		return &WrongLast{UnderWay: true}
	case codeDuplicateInBatch, codeDuplicateInFlight:
		return ErrDuplicate
	case codeAccountResources, codeInsufficient, codeMemoryResources, codeStorageResources, codeMaxStreamBytes:
		return fmt.Errorf("%w: %w", ErrFull, a.Error)
	case codeStoreFailed:
		// "maximum bytes exceeded" or "maximum messages exceeded". The only other
		// reason for this code is a single message that is too large.
		if strings.HasPrefix(a.Error.Description, "maximum ") {
			return fmt.Errorf("%w: %w", ErrFull, a.Error)
		}
	}
	return fmt.Errorf("%w: %w", ErrNotStored, a.Error)
}

// underWay reports whether a message of the same id is not yet on enough nodes.
func (a ack) underWay() bool { return a.Error != nil && a.Error.ErrorCode == codeDuplicateInFlight }

// passing reports whether a rejection is temporary: the same message may be stored
// a little later.
func (a ack) passing() bool {
	if a.Error == nil {
		return false
	}
	switch a.Error.ErrorCode {
	case codeDuplicateInFlight, codeIncompleteBatch, codeTooManyBatches, codeTooManyRequests, codeClusterNotReady, codeStreamOffline:
		return true
	}
	return false
}

// lastNamed reads the sequence from "wrong last sequence: 17".
func lastNamed(description string) uint64 {
	_, number, _ := strings.Cut(description, ": ")
	last, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0
	}
	return last
}
