package messages

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// publishTries bounds how often messages are published again: with new ids because theirs were taken, or with a new grant
// because the fence has moved.
const publishTries = 4

var errCollisions = errors.New("store messages: every id that was tried is taken")

// post is one request of a sender on its way into the stream.
type post struct {
	*Messages
	cmd        Enqueue
	account    streams.AccountID
	shard      streams.Shard
	keySubject string        // where the key's marker is; empty: there is no key
	expected   bus.Expected  // of the fence, where there is one
	grant      request.Grant // what quota gave for the messages
}

func (m *Messages) newPost(cmd Enqueue) *post {
	account := cmd.Caller.Account.ID
	p := &post{Messages: m, cmd: cmd, account: account, shard: m.shards.Of(account)}
	if cmd.Key != nil {
		p.keySubject = streams.KeySubject(p.shard, account, cmd.Key.ID)
	}
	return p
}

// accept stores the messages, unless another request with the same key stores its own meanwhile.
func (p *post) accept(ctx context.Context) (Accepted, error) {
	if err := p.checkName(ctx); err != nil {
		return Accepted{}, err
	}
	if err := p.checkRoom(); err != nil {
		return Accepted{}, err
	}
	// From here on a caller that hangs up changes nothing: what quota granted must be stored or given back.
	ctx = bus.While(httpx.Through(ctx))
	begun := p.now()
	first, found, err := p.admit(ctx, begun.Add(publishWithin/2))
	if found || err != nil {
		return first, err
	}
	ctx, cancel := context.WithDeadline(ctx, begun.Add(publishWithin))
	defer cancel()
	return p.publish(ctx)
}

// checkRoom is the fault where the disk, or what the account has stored already, leaves no room for messages.
func (p *post) checkRoom() error {
	if err := p.room(); err != nil {
		return storeFault(err)
	}
	return p.storage.mayEnqueue(p.shard, p.account)
}

// admit gets what the messages need to be stored: what to expect of the fence, and a grant. If there is no room for a
// request with a key, it tries again until the time is over: the first request with the key may have come by another
// ingress, and its grant may be what leaves no room. Once that one is stored, its answer is found.
func (p *post) admit(ctx context.Context, until time.Time) (first Accepted, found bool, err error) {
	for {
		err = p.prepare(ctx)
		if p.cmd.Key == nil || !fault.Is(err, fault.LimitExceeded) {
			return Accepted{}, false, refusal(err)
		}
		if first, found, readErr := p.replay(ctx); found || readErr != nil {
			return first, found, readErr
		}
		if fault.As(err).Code != request.LimitReserved || !p.pause(ctx, until) {
			return Accepted{}, false, refusal(err)
		}
	}
}

// prepare reads the fence and gets a grant, in this order. The messages are stored only if the fence has not moved since
// it was read. It moves when quota has a new leader, which may not know of our grant, and when a grant expires: its room
// may be given to others then, and the messages must not be stored. A move before the fence was read would go unnoticed.
func (p *post) prepare(ctx context.Context) (err error) {
	if p.fences != nil {
		if p.expected, err = p.fences[p.shard].Expect(ctx); err != nil {
			return storeFault(err)
		}
	}
	p.grant, err = p.reserve(ctx, p.cmd.Caller.Account, len(p.cmd.Drafts))
	return err
}

// refusal is the fault for a caller whose prepare failed.
func refusal(err error) error {
	if !fault.Is(err, fault.LimitExceeded) {
		return err
	}
	f := *fault.As(err)
	f.Code = "limit_exceeded"
	return &f
}

// publish tries until the messages are stored, or surely not stored, or their outcome stays unknown. It closes the grant
// of messages that are stored, gives back the grant of those that surely are not, and leaves the grant of all others to
// expire. No try begins after ctx has ended.
func (p *post) publish(ctx context.Context) (Accepted, error) {
	for range publishTries {
		made, msgs, err := p.write(ctx)
		if err != nil {
			p.giveBack(ctx, p.grant)
			return Accepted{}, err
		}
		stored, err := p.enqueue[p.shard].Commit(ctx, msgs)
		var taken *bus.WrongLast
		switch {
		case err == nil:
			p.grants.close(p.grant)
			p.ids.note(made.IDs[len(made.IDs)-1])
			if stored.First != 0 {
				made.First = stored.First + uint64(len(msgs)-len(made.IDs)) // the marker goes before
			}
			return made, nil
		case errors.Is(err, bus.ErrDuplicate):
			continue // one of these ids is taken
		case errors.Is(err, bus.ErrFenced):
			p.giveBack(ctx, p.grant)
			if err := p.prepare(ctx); err != nil {
				return Accepted{}, refusal(err)
			}
		case p.cmd.Key != nil && errors.As(err, &taken):
			// Another request with this key was first, or an attempt of this one whose answer was lost.
			return p.resolve(ctx, made, errKeyBusy)
		case p.cmd.Key != nil && errors.Is(err, bus.ErrUnknownOutcome):
			return p.resolve(ctx, made, storeFault(err))
		case errors.Is(err, bus.ErrNotStored):
			p.giveBack(ctx, p.grant)
			return Accepted{}, storeFault(err)
		default:
			return Accepted{}, storeFault(err) // the messages may be stored: the grant expires by itself
		}
	}
	p.giveBack(ctx, p.grant)
	return Accepted{}, errCollisions
}

// write gives the messages ids and writes them as events, with the key's marker before them.
func (p *post) write(ctx context.Context) (Accepted, []*nats.Msg, error) {
	made := Accepted{IDs: make([]streams.MessageID, len(p.cmd.Drafts)), Shard: p.shard}
	err := p.identity.Give(ctx, p.shard, made.IDs)
	if err != nil {
		return Accepted{}, nil, storeFault(err)
	}
	msgs := make([]*nats.Msg, 0, len(p.cmd.Drafts)+1)
	if p.cmd.Key != nil {
		if made.Answer, err = p.cmd.Key.Render(made.IDs); err != nil {
			return Accepted{}, nil, fmt.Errorf("render answer: %w", err)
		}
		marker, err := p.mark(made)
		if err != nil {
			return Accepted{}, nil, err
		}
		msgs = append(msgs, marker)
	}
	var subject string
	var lane streams.Lane
	account := p.account.String()
	for i, draft := range p.cmd.Drafts {
		if i == 0 || draft.Lane != lane {
			lane, subject = draft.Lane, streams.EnqueueSubject(p.shard, p.account, draft.Lane)
		}
		msg, err := p.message(subject, i, made.IDs)
		if err != nil {
			return Accepted{}, nil, err
		}
		msg.Header[jetstream.MsgIDHeader] = []string{account + "/" + made.IDs[i].String()}
		if i == 0 && p.fences != nil {
			p.expected.Put(msg)
		}
		msgs = append(msgs, msg)
	}
	return made, msgs, nil
}

// message writes one of the messages: for now, or for when it is due.
func (p *post) message(subject string, i int, ids []streams.MessageID) (*nats.Msg, error) {
	draft := p.cmd.Drafts[i]
	e := event.Enqueued{
		ID: ids[i], Until: p.cmd.Until, Due: p.cmd.Due,
		Phone: draft.Phone, Text: draft.Text, Data: draft.Data, Port: draft.Port, Encrypted: draft.Encrypted,
		SIM: draft.SIM, NoReceipt: draft.NoReceipt, Priority: draft.Priority, Month: p.grant.Month, Grant: p.grant.ID,
	}
	if p.cmd.Group && len(ids) > 1 {
		e.Group = ids[0]
	}
	if i == 0 {
		e.Name = p.cmd.Name
	}
	if p.cmd.Due.IsZero() {
		return event.Message(subject, e)
	}
	return event.Message(streams.ScheduledSubject(p.shard, p.account), event.Scheduled{Lane: draft.Lane, Enqueued: e})
}
