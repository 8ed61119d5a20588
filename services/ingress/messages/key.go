package messages

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// An idempotency key has a marker in the stream: an event on the key's own subject. The marker goes into the same commit
// as the messages, before them, on condition that its subject is empty. A commit is stored whole or not at all, so of all
// requests with the key, by whatever ingress, one is stored. The marker holds the ids of the messages and the answer, and
// expires after streams.KeyTTL.
//
// A request with a key is handled in this order:
//
//  1. lockKey: requests with the key follow each other within this ingress.
//  2. replay: if there is a marker, its answer is the answer, or the key was used with another request.
//  3. Commit: the condition decides between requests that come by several ingresses at the same time.
//  4. resolve: if the condition fails, or the outcome stays unknown, the marker tells what happened. If it names our
//     own ids, our messages are stored; if it names others, another request was first, and its answer is given.

// Key makes a request idempotent for streams.KeyTTL: a repeat of it gets the answer of the first one.
type Key struct {
	ID   string // unique in the account, also among what other dialects use as keys
	Hash string // SHA-256 of the request, hex: another request under the same ID is rejected
	// Render makes the answer, as JSON, from the messages' ids. The answer is
	// stored in the marker, so it has to be known before the messages are stored.
	Render func(ids []streams.MessageID) ([]byte, error)
}

// Faults of keys.
var (
	errMismatch  = fault.New(fault.Mismatch, "idempotency_mismatch", "The same idempotency key was used with another request")
	errKeyBusy   = &fault.Error{Kind: fault.Unavailable, Code: "idempotency_key_busy", Text: "The idempotency key is just running out, try again", RetryAfter: retrySoon}
	errKeyUnread = &fault.Error{Kind: fault.Unavailable, Code: "idempotency_unavailable", Text: "The idempotency key cannot be looked up now, try again", RetryAfter: retrySoon}
)

const (
	// askAgain is when quota is asked again, or a marker read again, while an earlier request with the key may be under
	// way.
	askAgain = 50 * time.Millisecond
	// A key that nobody seems to have is just being taken, or its marker has just expired.
	//
	// Limit: a key that another request has just taken is looked for 2 s. Beyond it: 503 `idempotency_key_busy` with
	// Retry-After, nothing stored.
	// Used up by: a client that repeats one key at once. Hurts: only those requests. Test: TestEnqueue_KeyOfNobody.
	keySettles = 2 * time.Second
)

// lockKey waits until no other request with the key is under way at this ingress. Otherwise a repeat that comes before the
// first one is answered could be rejected for a limit that the first one has used up.
func (p *post) lockKey(ctx context.Context) (unlock func(), err error) {
	if p.cmd.Key == nil {
		return func() {}, nil
	}
	return p.keys.Lock(ctx, p.keySubject)
}

// replay looks for the answer that an earlier request with the key got.
func (p *post) replay(ctx context.Context) (answer Accepted, found bool, err error) {
	if p.cmd.Key == nil {
		return Accepted{}, false, nil
	}
	marker, found, err := p.marker(ctx)
	if err != nil || !found {
		return Accepted{}, false, err
	}
	answer, err = p.answer(marker)
	return answer, true, err
}

// pause waits a moment before something is tried again. It is false, at once, when it is too late for that.
func (p *post) pause(ctx context.Context, until time.Time) bool {
	return p.now().Before(until) && clock.Sleep(ctx, askAgain) == nil
}

// resolve learns from the key's marker what became of messages whose outcome is unknown, or that were rejected because
// the key is taken. It does so however late that is, and even if the caller has gone: the grant of messages that are
// stored must not be given back. If there is no marker, the answer is the error otherwise.
func (p *post) resolve(ctx context.Context, made Accepted, otherwise error) (Accepted, error) {
	ctx = httpx.Through(ctx)
	marker, found, err := p.marker(ctx)
	// On a cluster another request's messages may be on their way, and block these before its marker can be read.
	for until := p.now().Add(keySettles); err == nil && !found && p.pause(ctx, until); {
		marker, found, err = p.marker(ctx)
	}
	switch {
	case err != nil || !found && (fault.Is(otherwise, fault.UnknownOutcome) || ctx.Err() != nil): // an attempt of our own may be there
		return Accepted{}, storeFault(fmt.Errorf("%w: %w", bus.ErrUnknownOutcome, errors.Join(otherwise, err)))
	case found && len(marker.Messages) > 0 && marker.Messages[0] == made.IDs[0]:
		p.grants.close(p.grant)
		return made, nil
	}
	p.giveBack(ctx, p.grant)
	if !found {
		return Accepted{}, otherwise
	}
	return p.answer(marker)
}

var keyTTL = strconv.Itoa(int(streams.KeyTTL.Seconds())) + "s"

// mark writes the marker that goes before the messages.
func (p *post) mark(made Accepted) (*nats.Msg, error) {
	msg, err := event.Message(p.keySubject, event.Keyed{Request: p.cmd.Key.Hash, Messages: made.IDs, Answer: made.Answer})
	if err != nil {
		return nil, err
	}
	msg.Header[jetstream.MsgIDHeader] = []string{p.account.String() + "/" + made.IDs[0].String() + "/key"}
	msg.Header[jetstream.MsgTTLHeader] = []string{keyTTL}
	msg.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{"0"}
	return msg, nil
}

// marker reads the key's marker from the stream's leader: a replica may not have it yet.
func (p *post) marker(ctx context.Context) (event.Keyed, bool, error) {
	msg, err := p.bus.LastForSubject(ctx, streams.EnqueueStream(p.shard), p.keySubject)
	if errors.Is(err, bus.ErrNoMessage) {
		return event.Keyed{}, false, nil
	}
	if err != nil {
		return event.Keyed{}, false, errKeyUnread.With(err)
	}
	marker, err := event.Decode[event.Keyed](msg.Data)
	return marker, err == nil, err
}

// answer gives what the marked request got, if this is the same one.
func (p *post) answer(marker event.Keyed) (Accepted, error) {
	if p.cmd.Name != "" {
		return Accepted{}, errTaken
	}
	if marker.Request != p.cmd.Key.Hash {
		return Accepted{}, errMismatch
	}
	return Accepted{IDs: marker.Messages, Answer: marker.Answer, Replayed: true}, nil
}

// checkName is a Conflict if the account has a group of that name whose marker has run out, a day after it was accepted: any
// dispatcher that answers has folded it by then, so none has to wait for what is stored now.
func (p *post) checkName(ctx context.Context) error {
	if p.cmd.Name == "" {
		return nil
	}
	found, err := p.find(ctx, p.cmd.Caller, request.Find{Ref: p.cmd.Name, Older: true})
	switch {
	case err != nil:
		return err
	case found.Group != nil && found.Group.Name == p.cmd.Name:
		return errTaken
	}
	return nil
}
