package operator

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// maxAsked is the most accounts that are asked for a sender's id.
//
// Limit: message show asks at most 1,000 accounts for a sender's id. Beyond it: the command fails: it needs
// --account.
// Used up by: the operator. Hurts: nobody else. Test: TestFind_ManyAccounts.
const maxAsked = 1000

// finder finds messages by the ids of all dialects.
type finder struct {
	bus    *bus.Bus
	book   *accounts.Accounts
	shards streams.Shards
}

// find finds a message of an account, or of any if that is not named. Ids of ours go before senders', but for an
// account that is named, in which the sender's are meant.
func (f finder) find(ctx context.Context, account, ref string) (request.Shown, error) {
	if account != "" {
		return f.findIn(ctx, account, ref)
	}
	if id, err := streams.ParseMessageID(ref); err == nil {
		if shown, err := lookMessage(ctx, f.bus, f.shards, id); err != nil || shown.Message != nil {
			return shown, err
		}
	}
	shown, err := f.byNumber(ctx, ref)
	if err != nil || shown.Message != nil {
		return shown, err
	}
	return f.byName(ctx, ref)
}

func (f finder) findIn(ctx context.Context, account, ref string) (request.Shown, error) {
	owner, err := f.book.Find(ctx, account)
	if err != nil {
		return request.Shown{}, err
	}
	group, err := f.group(ctx, owner.ID, ref)
	if err != nil {
		return request.Shown{}, err
	}
	if group != nil {
		return f.show(ctx, f.shards.Of(owner.ID), memberOf(group, ref))
	}
	shown, err := f.byNumber(ctx, ref)
	if err == nil && (shown.Message == nil || shown.Message.Account != owner.ID) {
		err = unknownMessage(ref)
	}
	return shown, err
}

// memberOf is the message of a group that was asked for: the first one, unless it was asked for another by its own id.
func memberOf(group *request.Group, ref string) streams.MessageID {
	id, err := streams.ParseMessageID(ref)
	if err != nil || group.Name == ref {
		return group.ID
	}
	return id
}

// byNumber finds a message by the number that an SMS Nodes sender was given: where it stands in the stream of which
// shard. There is none if that is no such number.
func (f finder) byNumber(ctx context.Context, ref string) (request.Shown, error) {
	number, err := strconv.ParseUint(ref, 10, 64)
	shard, seq := streams.ParsePlaceNumber(number)
	if err != nil || seq == 0 || int(shard) >= int(f.shards) {
		return request.Shown{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	msg, err := f.bus.Get(ctx, streams.EnqueueStream(shard), seq)
	if errors.Is(err, bus.ErrNoMessage) {
		return request.Shown{}, nil
	}
	if err != nil {
		return request.Shown{}, err
	}
	e, err := event.Decode[event.Enqueued](msg.Data)
	if err != nil || e.ID == 0 { // another kind of event
		return request.Shown{}, nil //nolint:nilerr // there is no message
	}
	return f.show(ctx, shard, e.ID)
}

// byName finds a message by the sender's id, in whichever account has it.
func (f finder) byName(ctx context.Context, ref string) (request.Shown, error) {
	all, err := f.book.List(ctx)
	if err != nil {
		return request.Shown{}, err
	}
	if len(all) > maxAsked {
		return request.Shown{}, fmt.Errorf("message %s is not known as one of ours: for a sender's id give --account too, there are %d", ref, len(all))
	}
	var owners []string
	var found *request.Group
	var shard streams.Shard
	for _, account := range all {
		group, err := f.group(ctx, account.ID, ref)
		if err != nil {
			return request.Shown{}, err
		}
		if group != nil {
			owners = append(owners, account.Name)
			found, shard = group, f.shards.Of(account.ID)
		}
	}
	switch len(owners) {
	case 0:
		return request.Shown{}, unknownMessage(ref)
	case 1:
		return f.show(ctx, shard, memberOf(found, ref))
	default:
		return request.Shown{}, fmt.Errorf("message %s is known in several accounts, which are %s: give --account", ref, strings.Join(owners, ", "))
	}
}

func (f finder) group(ctx context.Context, account streams.AccountID, ref string) (*request.Group, error) {
	ask := func(q request.Find) (request.Found, error) {
		return call[request.Found](ctx, f.bus, request.DispatcherFind(f.shards.Of(account)), q)
	}
	found, err := ask(request.Find{Account: account, Ref: ref})
	if err != nil || found.Group == nil {
		return nil, err
	}
	return found.Group, found.Group.Rest(account, ask)
}

func (f finder) show(ctx context.Context, shard streams.Shard, id streams.MessageID) (request.Shown, error) {
	shown, err := call[request.Shown](ctx, f.bus, request.DispatcherShow(shard), request.Show{ID: id})
	if err == nil && shown.Message == nil {
		err = unknownMessage(id.String())
	}
	return shown, err
}

// members lists the messages of a message's group.
func (f finder) members(ctx context.Context, m request.Message) ([]memberView, error) {
	group, err := f.group(ctx, m.Account, m.ID.String())
	if err != nil || group == nil {
		return nil, err
	}
	var all []memberView
	for _, member := range group.Messages {
		all = append(all, memberView{ID: member.ID, State: member.State, Reason: member.Reason})
	}
	return all, nil
}
