package core

import (
	"cmp"
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

// MaxDrafts is the most messages that one Enqueue stores.
const MaxDrafts = 1000

// Draft is a message that has been validated.
type Draft struct {
	Content
	Lane streams.Lane
}

// Content is what a message says, to whom, and how.
type Content struct {
	Phone     event.Private
	Text      event.Private
	Data      event.Private // base64, instead of a text
	Port      int           // of data
	Encrypted bool          // number and text are for the phone to decrypt
	SIM       int           // which SIM card sends it, from 1; 0: the phone's choice
	NoReceipt bool          // no delivery report is wanted
	Priority  int           // as the sender gave it, for the phone; its lane says what we make of it
}

// Enqueue stores messages: all of them or none.
type Enqueue struct {
	Caller Caller
	Drafts []Draft // 1 to MaxDrafts
	Key    *Key    // nil: the request is not idempotent

	Group bool   // the messages are one request's to several recipients
	Name  string // the sender's id of the group, unique in the account: another one is a Conflict. Not beside a Key.

	Due   time.Time // not sent before; zero: at once. At most streams.MaxSchedule ahead
	Until time.Time // not sent from then on; zero: for as long as the account's messages are valid
}

// Key makes a request idempotent for streams.KeyTTL: repeats of it get the
// first one's answer.
type Key struct {
	ID   string // unique in the account, also among what other dialects use as keys
	Hash string // SHA-256 of the request, hex: another one under the same ID is refused
	// Render makes the answer, as JSON, from the messages' ids. The answer is
	// stored with the messages, so it is decided before.
	Render func(ids []streams.MessageID) ([]byte, error)
}

// Accepted says what was stored.
type Accepted struct {
	IDs      []streams.MessageID // in the order of the drafts
	First    uint64              // the sequence of the first one's event; 0 if only that it is stored is known
	Shard    streams.Shard       // whose stream has them
	Answer   []byte              // with a Key: what repeats get too
	Replayed bool                // this is a repeat, and nothing new was stored
}

// Faults of Enqueue, beside those of quota and of a failed commit.
var (
	errMismatch   = fault.New(fault.Mismatch, "idempotency_mismatch", "The same idempotency key was used with another request")
	errKeyBusy    = &fault.Error{Kind: fault.Unavailable, Code: "idempotency_key_busy", Text: "The idempotency key is just running out, try again", RetryAfter: retrySoon}
	errKeyUnread  = &fault.Error{Kind: fault.Unavailable, Code: "idempotency_unavailable", Text: "The idempotency key cannot be looked up now, try again", RetryAfter: retrySoon}
	errCollisions = errors.New("store messages: every id that was tried is taken")
)

// tries bounds how often messages whose ids were taken get new ones.
const tries = 4

const (
	// askAgain is when quota is asked, or a marker read, again for a request
	// whose first may be under way.
	askAgain = 50 * time.Millisecond
	// keySettles is how long a key may be taken by nobody. Used up by who repeats one key at once, and only
	// those requests wait.
	keySettles = 2 * time.Second
)

// Enqueue stores the messages of one request. An error that is neither
// UnknownOutcome nor Internal says that surely nothing was stored.
func (c *Core) Enqueue(ctx context.Context, cmd Enqueue) (Accepted, error) {
	accepted, err := c.accept(ctx, cmd)
	switch {
	case err != nil:
		return Accepted{}, c.refuse(err)
	case accepted.Replayed:
		c.metrics.replayed.Inc()
	default:
		c.metrics.accepted.Add(float64(len(accepted.IDs)))
	}
	return accepted, nil
}

func (c *Core) accept(ctx context.Context, cmd Enqueue) (Accepted, error) {
	if n := len(cmd.Drafts); n == 0 || n > MaxDrafts {
		return Accepted{}, fmt.Errorf("enqueue %d messages: want 1 to %d", n, MaxDrafts)
	}
	if err := cmd.Caller.MayEnqueue(); err != nil {
		return Accepted{}, err
	}
	if err := c.setTimes(&cmd); err != nil {
		return Accepted{}, err
	}
	if cmd.Name != "" {
		// The key of a name is spent for ever: its marker tells our own retry from another's request, and older names
		// stand in the projection.
		cmd.Key = &Key{ID: "name/" + cmd.Name, Render: func([]streams.MessageID) ([]byte, error) { return []byte("null"), nil }}
	}
	s := store{
		Core:    c,
		cmd:     cmd,
		account: cmd.Caller.Account.ID,
		shard:   c.shards.Of(cmd.Caller.Account.ID),
	}
	if cmd.Key != nil {
		s.keySubject = streams.KeySubject(s.shard, s.account, cmd.Key.ID)
		// A repeat that comes before the first is answered waits for it: else it
		// could be refused for a limit that the first has used up.
		giveBack, err := c.keys.Lock(ctx, s.keySubject)
		if err != nil {
			return Accepted{}, err
		}
		defer giveBack()
		switch answer, found, err := s.answered(ctx); {
		case err != nil:
			return Accepted{}, err
		case found:
			return answer, nil
		}
	}
	if cmd.Name != "" {
		if err := s.unused(ctx); err != nil {
			return Accepted{}, err
		}
	}
	if err := c.room(); err != nil {
		return Accepted{}, storeFault(err)
	}
	if err := c.holdings.mayEnqueue(s.shard, s.account); err != nil {
		return Accepted{}, err
	}
	// From here on a caller that hangs up changes nothing: what quota granted
	// must be stored or given back.
	ctx = bus.While(httpx.Through(ctx))
	before := c.now().Add(publishWithin)
	err := s.admit(ctx)
	for cmd.Key != nil && fault.Is(err, fault.LimitExceeded) {
		// The first may have come by another ingress meanwhile, and its grant
		// be the one that leaves no room.
		if answer, found, readErr := s.answered(ctx); found || readErr != nil {
			return answer, readErr
		}
		if fault.As(err).Code != request.LimitReserved || !c.now().Before(before.Add(-publishWithin/2)) {
			break
		}
		if clock.Sleep(ctx, askAgain) != nil {
			break
		}
		err = s.admit(ctx)
	}
	if err != nil {
		return Accepted{}, refusal(err)
	}
	ctx, cancel := context.WithDeadline(ctx, before)
	defer cancel()
	return s.run(ctx)
}

// admit gets room for the messages. The fence goes first: if it moves later, the room may have been given to others.
func (s *store) admit(ctx context.Context) (err error) {
	if s.fences != nil {
		if s.expected, err = s.fences[s.shard].Expect(ctx); err != nil {
			return storeFault(err)
		}
	}
	s.grant, err = s.reserve(ctx, s.cmd.Caller.Account, len(s.cmd.Drafts))
	return err
}

// refusal is what a caller is told of an error of admit.
func refusal(err error) error {
	if !fault.Is(err, fault.LimitExceeded) {
		return err
	}
	told := *fault.As(err)
	told.Code = "limit_exceeded"
	return &told
}

// setTimes gives the messages a validity, and checks that they end before they are forgotten.
func (c *Core) setTimes(cmd *Enqueue) error {
	now := c.now()
	cmd.Due = cmd.Due.UTC().Truncate(time.Millisecond)
	if !cmd.Due.After(c.sure()) { // what has gone out cannot be taken back
		cmd.Due = time.Time{}
	}
	from := now
	if cmd.Due.After(now) {
		from = cmd.Due
	}
	if from.After(now.Add(streams.MaxSchedule)) {
		return errDue
	}
	if cmd.Until.IsZero() {
		cmd.Until = from.Add(cmp.Or(cmd.Caller.Account.Plan.Validity, streams.DefaultValidity))
	}
	cmd.Until = cmd.Until.UTC().Truncate(time.Millisecond)
	if cmd.Until.After(from.Add(streams.MaxValidity)) {
		return errValidity
	}
	return nil
}

// unused is a Conflict if the account has a group of that name whose marker has run out, a day after it was accepted: any
// dispatcher that answers has folded it by then, so none has to wait for what is stored now.
func (s *store) unused(ctx context.Context) error {
	found, err := s.find(ctx, s.cmd.Caller, request.Find{Ref: s.cmd.Name, Older: true})
	switch {
	case err != nil:
		return err
	case found.Group != nil && found.Group.Name == s.cmd.Name:
		return errTaken
	}
	return nil
}

// store is one Enqueue on its way into the stream.
type store struct {
	*Core
	cmd        Enqueue
	account    streams.AccountID
	shard      streams.Shard
	grant      request.Grant
	expected   bus.Expected // of the fence, where there is one
	keySubject string
}

// run publishes until the messages are stored, surely not stored, or their
// outcome stays unknown, and settles the grant accordingly. No publish begins
// after ctx has ended.
func (s *store) run(ctx context.Context) (Accepted, error) {
	through := httpx.Through(ctx) // for what follows, however late
	for range tries {
		made, msgs, err := s.make(ctx)
		if err != nil {
			s.release(through, s.grant)
			return Accepted{}, err
		}
		stored, err := s.enqueue[s.shard].Commit(ctx, msgs)
		var taken *bus.WrongLast
		switch {
		case err == nil:
			s.grants.end(s.grant)
			s.ids.saw(made.IDs[len(made.IDs)-1])
			if stored.First != 0 {
				made.First = stored.First + uint64(len(msgs)-len(made.IDs)) // the marker goes before
			}
			return made, nil
		case errors.Is(err, bus.ErrDuplicate):
			continue // somebody has one of these ids
		case errors.Is(err, bus.ErrFenced):
			s.release(through, s.grant)
			if err := s.admit(ctx); err != nil {
				return Accepted{}, refusal(err)
			}
		case s.cmd.Key != nil && errors.As(err, &taken):
			// Another request with this key was first, or this very one in an
			// attempt whose answer got lost.
			return s.settle(through, made, errKeyBusy)
		case s.cmd.Key != nil && errors.Is(err, bus.ErrUnknownOutcome):
			return s.settle(through, made, storeFault(err))
		case errors.Is(err, bus.ErrNotStored):
			s.release(through, s.grant)
			return Accepted{}, storeFault(err)
		default:
			return Accepted{}, storeFault(err) // the grant ends by itself
		}
	}
	s.release(through, s.grant)
	return Accepted{}, errCollisions
}

// settle learns from the marker what became of the messages made. If there is
// none, the outcome is otherwise.
func (s *store) settle(ctx context.Context, made Accepted, otherwise error) (Accepted, error) {
	marker, found, err := s.marker(ctx)
	// On a cluster another request's messages may be on their way, and refuse
	// these before its marker can be read.
	for until := s.now().Add(keySettles); err == nil && !found && s.now().Before(until) && clock.Sleep(ctx, askAgain) == nil; {
		marker, found, err = s.marker(ctx)
	}
	switch {
	case err != nil || !found && (fault.Is(otherwise, fault.UnknownOutcome) || ctx.Err() != nil): // an attempt of our own may be there
		return Accepted{}, storeFault(fmt.Errorf("%w: %w", bus.ErrUnknownOutcome, errors.Join(otherwise, err)))
	case found && len(marker.Messages) > 0 && marker.Messages[0] == made.IDs[0]:
		s.grants.end(s.grant)
		return made, nil
	}
	s.release(ctx, s.grant)
	if !found {
		return Accepted{}, otherwise
	}
	return s.answer(marker)
}

// make gives the messages ids and writes them as events.
func (s *store) make(ctx context.Context) (Accepted, []*nats.Msg, error) {
	made := Accepted{IDs: make([]streams.MessageID, len(s.cmd.Drafts)), Shard: s.shard}
	err := s.identity.Give(ctx, s.shard, made.IDs)
	if err != nil {
		return Accepted{}, nil, storeFault(err)
	}
	msgs := make([]*nats.Msg, 0, len(s.cmd.Drafts)+1)
	if s.cmd.Key != nil {
		if made.Answer, err = s.cmd.Key.Render(made.IDs); err != nil {
			return Accepted{}, nil, fmt.Errorf("render answer: %w", err)
		}
		marker, err := s.mark(made)
		if err != nil {
			return Accepted{}, nil, err
		}
		msgs = append(msgs, marker)
	}
	var subject string
	var lane streams.Lane
	account := s.account.String()
	for i, draft := range s.cmd.Drafts {
		if i == 0 || draft.Lane != lane {
			lane, subject = draft.Lane, streams.EnqueueSubject(s.shard, s.account, draft.Lane)
		}
		msg, err := s.message(subject, i, made.IDs)
		if err != nil {
			return Accepted{}, nil, err
		}
		msg.Header[jetstream.MsgIDHeader] = []string{account + "/" + made.IDs[i].String()}
		if i == 0 && s.fences != nil {
			s.expected.Put(msg)
		}
		msgs = append(msgs, msg)
	}
	return made, msgs, nil
}

// message writes one of the messages: for now, or for when it is due.
func (s *store) message(subject string, i int, ids []streams.MessageID) (*nats.Msg, error) {
	draft := s.cmd.Drafts[i]
	e := event.Enqueued{
		ID: ids[i], Until: s.cmd.Until, Due: s.cmd.Due,
		Phone: draft.Phone, Text: draft.Text, Data: draft.Data, Port: draft.Port, Encrypted: draft.Encrypted,
		SIM: draft.SIM, NoReceipt: draft.NoReceipt, Priority: draft.Priority, Month: s.grant.Month, Grant: s.grant.ID,
	}
	if s.cmd.Group && len(ids) > 1 {
		e.Group = ids[0]
	}
	if i == 0 {
		e.Name = s.cmd.Name
	}
	if s.cmd.Due.IsZero() {
		return event.Message(subject, e)
	}
	return event.Message(streams.ScheduledSubject(s.shard, s.account), event.Scheduled{Lane: draft.Lane, Enqueued: e})
}

var keyTTL = strconv.Itoa(int(streams.KeyTTL.Seconds())) + "s"

// mark writes the marker that goes before the messages.
func (s *store) mark(made Accepted) (*nats.Msg, error) {
	msg, err := event.Message(s.keySubject, event.Keyed{Request: s.cmd.Key.Hash, Messages: made.IDs, Answer: made.Answer})
	if err != nil {
		return nil, err
	}
	msg.Header[jetstream.MsgIDHeader] = []string{s.account.String() + "/" + made.IDs[0].String() + "/key"}
	msg.Header[jetstream.MsgTTLHeader] = []string{keyTTL}
	msg.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{"0"}
	return msg, nil
}

// answered looks for the answer that an earlier request with this key got.
func (s *store) answered(ctx context.Context) (Accepted, bool, error) {
	marker, found, err := s.marker(ctx)
	if err != nil || !found {
		return Accepted{}, false, err
	}
	answer, err := s.answer(marker)
	return answer, true, err
}

// marker reads the key's marker from the stream's leader: a replica may not
// have it yet.
func (s *store) marker(ctx context.Context) (event.Keyed, bool, error) {
	msg, err := s.bus.LastForSubject(ctx, streams.EnqueueStream(s.shard), s.keySubject)
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
func (s *store) answer(marker event.Keyed) (Accepted, error) {
	if s.cmd.Name != "" {
		return Accepted{}, errTaken
	}
	if marker.Request != s.cmd.Key.Hash {
		return Accepted{}, errMismatch
	}
	return Accepted{IDs: marker.Messages, Answer: marker.Answer, Replayed: true}, nil
}
