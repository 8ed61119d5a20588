package core

import (
	"context"
	"slices"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// lookupWithin is how long looking something up may take. Used up by a part that is slow, or by an
	// account that asks too much at once: only its own requests get 503.
	lookupWithin = 15 * time.Second
	// lookupsAtATime is how many an account may have under way; its others wait. Used up by one account, and
	// only its own requests wait.
	lookupsAtATime = 4
)

// lookup is one of the turns of an account.
type lookup struct {
	account streams.AccountID
	number  uint64
}

// Group is the messages of one request to several recipients, or a message alone.
type Group struct {
	ID       streams.MessageID // of its first message
	Name     string            // the sender's id of it, if it gave one
	State    streams.State     // streams.Together of its messages'
	Device   streams.DeviceID  // the target, or who has had it last; zero: nobody yet
	Messages []Member
}

// Member is a message of a group.
type Member struct {
	ID streams.MessageID
	Content
	State  streams.State
	Reason string // why it failed, if that is known
	Steps  []Step // how it came there, in order
	Due    time.Time
	Until  time.Time
}

// Step is when a message came to a state.
type Step = request.Step

// Faults of groups, and of what only some dialects ask for.
var (
	errTaken      = fault.New(fault.Conflict, "duplicate_id", "A message with this id exists already")
	errDue        = fault.New(fault.Invalid, "invalid_schedule", "A message can be scheduled at most 21 days ahead")
	errValidity   = fault.New(fault.Invalid, "invalid_validity", "A message can be valid for at most 7 days, after it is due if it is scheduled")
	errLookup     = &fault.Error{Kind: fault.Unavailable, Code: "dispatcher_unavailable", Text: "Messages cannot be looked up now, try again", RetryAfter: retrySoon}
	errNoGroup    = fault.New(fault.NotFound, "not_found", "Message not found")
	errNotWaiting = fault.New(fault.Conflict, "not_pending", "The message is not pending")
)

// Group looks a group up, by the sender's id of it or else by the id of any of its messages. It is a fault NotFound if
// the account has none.
func (c *Core) Group(ctx context.Context, caller Caller, ref string) (Group, error) {
	found, err := c.find(ctx, caller, request.Find{Ref: ref})
	if err == nil && found.Group == nil {
		err = errNoGroup
	}
	if err == nil {
		err = c.rest(ctx, caller, found.Group)
	}
	if err != nil {
		return Group{}, c.refuse(err)
	}
	return readGroup(*found.Group), nil
}

// rest asks for what had no room in the answer with a group.
func (c *Core) rest(ctx context.Context, caller Caller, g *request.Group) error {
	account := caller.Account.ID
	return g.Rest(account, func(q request.Find) (request.Found, error) {
		return lookUp[request.Found](ctx, c, caller, request.DispatcherFind(c.shards.Of(account)), q)
	})
}

func (c *Core) find(ctx context.Context, caller Caller, q request.Find) (request.Found, error) {
	q.Account = caller.Account.ID
	return lookUp[request.Found](ctx, c, caller, request.DispatcherFind(c.shards.Of(q.Account)), q)
}

// lookUp asks a dispatcher, in the account's turn: a list can cost a thousand times what the request for it does.
func lookUp[A any](ctx context.Context, c *Core, caller Caller, subject string, question any) (answer A, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupWithin)
	defer cancel()
	giveBack, err := c.lookups.Lock(ctx, lookup{caller.Account.ID, c.lookedUp.Add(1) % lookupsAtATime})
	if err != nil {
		return answer, errLookup.With(err)
	}
	defer giveBack()
	if err := caller.weigh(mostFound); err != nil {
		return answer, err
	}
	answer, err = bus.Call[A](ctx, c.bus, subject, question)
	if err := caller.weigh(found(answer) - mostFound); err != nil {
		return answer, err
	}
	if fault.Is(err, fault.Unavailable) {
		return answer, errLookup.With(err)
	}
	return answer, err
}

// Sequence is where a message of the caller's account stands in the stream of its shard. It is a fault NotFound if the
// account has none.
func (c *Core) Sequence(ctx context.Context, caller Caller, id streams.MessageID) (uint64, error) {
	account := caller.Account.ID
	// It is the first that comes after the one before it.
	q := request.Find{Account: account, Ref: id.String(), After: max(id, 1) - 1}
	found, err := lookUp[request.Found](ctx, c, caller, request.DispatcherFind(c.shards.Of(account)), q)
	if err != nil {
		return 0, c.refuse(err)
	}
	if found.Group != nil {
		for _, m := range found.Group.Messages {
			if m.ID == id {
				return m.Seq, nil
			}
		}
	}
	return 0, c.refuse(errNoGroup)
}

// Browse asks for groups by when they were accepted.
type Browse struct {
	Caller   Caller
	From, To time.Time // To is not included; zero: open
	States   []streams.State
	Device   streams.DeviceID
	Oldest   bool // the oldest first
	Content  bool // with texts and data
	Offset   int
	Limit    int // 1 to 100
}

// Groups gives a page of groups, and how many there are in all. It counts up to 100,000 and no further.
func (c *Core) Groups(ctx context.Context, q Browse) ([]Group, int, error) {
	account := q.Caller.Account.ID
	got, err := lookUp[request.Browsed](ctx, c, q.Caller, request.DispatcherBrowse(c.shards.Of(account)), request.Browse{
		Account: account, From: q.From, To: q.To, States: q.States, Device: q.Device,
		Oldest: q.Oldest, Content: q.Content, Offset: q.Offset, Limit: q.Limit,
	})
	if err != nil {
		return nil, 0, c.refuse(err)
	}
	groups := make([]Group, len(got.Groups))
	for i, g := range got.Groups {
		if err := c.rest(ctx, q.Caller, &g); err != nil {
			return nil, 0, c.refuse(err)
		}
		groups[i] = readGroup(g)
	}
	return groups, got.Total, nil
}

// Cancel takes a group's messages back that no phone has yet, and gives the group as it stands then. It is a fault
// Conflict if there are none, NotFound if there is no such group.
func (c *Core) Cancel(ctx context.Context, caller Caller, ref string) (Group, error) {
	group, err := c.Group(ctx, caller, ref)
	if err != nil {
		return group, err
	}
	account := caller.Account.ID
	var changed []streams.MessageID
	for some := range slices.Chunk(group.Messages, event.MaxItems) {
		q := request.Decide{Account: account, Waiting: true}
		for _, m := range some {
			q.Messages = append(q.Messages, m.ID)
		}
		decided, err := lookUp[request.Decided](ctx, c, caller, request.DispatcherCancel(c.shards.Of(account)), q)
		if err != nil {
			return group, c.refuse(err)
		}
		changed = append(changed, decided.Changed...)
	}
	if len(changed) == 0 {
		return group, c.refuse(errNotWaiting)
	}
	now := c.now().UTC()
	var states []streams.State
	for i := range group.Messages {
		m := &group.Messages[i]
		if slices.Contains(changed, m.ID) {
			m.State = streams.Cancelled
			m.Steps = append(m.Steps, Step{At: now, State: m.State})
		}
		states = append(states, m.State)
	}
	group.State = streams.Together(states)
	return group, nil
}

// readGroup reads what a dispatcher gave. A message whose event cannot be read any more has no content.
func readGroup(g request.Group) Group {
	group := Group{ID: g.ID, Name: g.Name, State: g.State, Device: g.Device}
	for _, m := range g.Messages {
		member := Member{ID: m.ID, State: m.State, Reason: m.Reason, Steps: m.Steps}
		if e, err := event.Decode[event.Enqueued](m.Body); err == nil {
			member.Content, member.Due, member.Until = contentOf(e), e.Due, e.Until
		}
		group.Messages = append(group.Messages, member)
	}
	return group
}

func contentOf(e event.Enqueued) Content {
	return Content{
		Phone: e.Phone, Text: e.Text, Data: e.Data, Port: e.Port, Encrypted: e.Encrypted,
		SIM: e.SIM, NoReceipt: e.NoReceipt, Priority: e.Priority,
	}
}
