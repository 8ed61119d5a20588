package messages

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// MaxDrafts is the most messages that one Enqueue stores.
//
// Limit: one request stores at most 1,000 messages. Beyond it: an error; each dialect rejects such a request before.
// Used up by: one request. Hurts: only that request. Test: TestEnqueue_Bounds.
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
	Priority  int           // as the sender gave it, for the phone; the message's own is that of its lane
}

// Enqueue stores messages: all of them or none.
type Enqueue struct {
	Caller access.Caller
	Drafts []Draft // 1 to MaxDrafts
	Key    *Key    // nil: the request is not idempotent

	Group bool   // the messages are one request's to several recipients
	Name  string // the sender's id of the group, unique in the account: another one is a Conflict. Not beside a Key.

	Due   time.Time // not sent before; zero: at once. At most streams.MaxSchedule ahead
	Until time.Time // not sent from then on; zero: for as long as the account's messages are valid
}

// Accepted says what was stored.
type Accepted struct {
	IDs      []streams.MessageID // in the order of the drafts
	First    uint64              // the sequence of the first one's event; 0 if only that it is stored is known
	Shard    streams.Shard       // whose stream has them
	Answer   []byte              // with a Key: what repeats get too
	Replayed bool                // this is a repeat, and nothing new was stored
}

// Enqueue stores the messages of one request. An error that is neither UnknownOutcome nor Internal says that surely
// nothing was stored.
func (m *Messages) Enqueue(ctx context.Context, cmd Enqueue) (Accepted, error) {
	if err := m.check(&cmd); err != nil {
		return Accepted{}, err
	}
	p := m.newPost(cmd)
	unlock, err := p.lockKey(ctx)
	if err != nil {
		return Accepted{}, err
	}
	defer unlock()
	accepted, replayed, err := p.replay(ctx)
	if err == nil && !replayed {
		accepted, err = p.accept(ctx)
	}
	switch {
	case err != nil:
		return Accepted{}, err
	case accepted.Replayed:
		m.metrics.replayed.Inc()
	default:
		m.metrics.accepted.Add(float64(len(accepted.IDs)))
	}
	return accepted, nil
}

// check says what is wrong with a request by itself, and completes it.
func (m *Messages) check(cmd *Enqueue) error {
	if n := len(cmd.Drafts); n == 0 || n > MaxDrafts {
		return fmt.Errorf("enqueue %d messages: want 1 to %d", n, MaxDrafts)
	}
	if err := cmd.Caller.MayEnqueue(); err != nil {
		return err
	}
	if cmd.Name != "" {
		// A name is taken for as long as its group is known. For a day its marker says so, and tells a retry of our own
		// from another request; after that the dispatchers know the name.
		cmd.Key = &Key{ID: "name/" + cmd.Name, Render: func([]streams.MessageID) ([]byte, error) { return []byte("null"), nil }}
	}
	return m.setTimes(cmd)
}

// setTimes gives the messages a validity, and checks that they end before they are forgotten.
func (m *Messages) setTimes(cmd *Enqueue) error {
	now := m.now()
	cmd.Due = cmd.Due.UTC().Truncate(time.Millisecond)
	if !cmd.Due.After(m.sure()) { // what has gone out cannot be taken back
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
