package messages

import (
	"context"
	"slices"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// Limit: looking something up takes 15 s. Beyond it: 503 `dispatcher_unavailable`.
	// Used up by: a dispatcher that is slow, or an account that asks too much at once. Hurts: only those requests.
	// Test: TestGroup_MuteDispatcher.
	lookupWithin = 15 * time.Second
	// Limit: an account looks up, lists or cancels 4 things at a time. Beyond it: its others wait, within the 15 s above.
	// Used up by: one account. Hurts: only that account. Test: TestGroup_Crowd.
	lookupsAtATime = 4
)

// lookup is one of the lookups that an account may have under way.
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
func (m *Messages) Group(ctx context.Context, caller access.Caller, ref string) (Group, error) {
	found, err := m.find(ctx, caller, request.Find{Ref: ref})
	if err == nil && found.Group == nil {
		err = errNoGroup
	}
	if err == nil {
		err = m.rest(ctx, caller, found.Group)
	}
	if err != nil {
		return Group{}, err
	}
	return readGroup(*found.Group), nil
}

// rest asks for the messages of a group for which the answer had no room.
func (m *Messages) rest(ctx context.Context, caller access.Caller, g *request.Group) error {
	account := caller.Account.ID
	return g.Rest(account, func(q request.Find) (request.Found, error) {
		return lookUp[request.Found](ctx, m, caller, request.DispatcherFind(m.shards.Of(account)), q)
	})
}

func (m *Messages) find(ctx context.Context, caller access.Caller, q request.Find) (request.Found, error) {
	q.Account = caller.Account.ID
	return lookUp[request.Found](ctx, m, caller, request.DispatcherFind(m.shards.Of(q.Account)), q)
}

// lookUp asks a dispatcher, once the account has fewer than lookupsAtATime under way: a list can cost a thousand times
// what the request for it does.
func lookUp[A any](ctx context.Context, m *Messages, caller access.Caller, subject string, question any) (answer A, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupWithin)
	defer cancel()
	unlock, err := m.lookups.Lock(ctx, lookup{caller.Account.ID, m.lookedUp.Add(1) % lookupsAtATime})
	if err != nil {
		return answer, errLookup.With(err)
	}
	defer unlock()
	room := answerRoom{caller.Room}
	if err := room.weigh(mostFound); err != nil {
		return answer, err
	}
	answer, err = bus.Call[A](ctx, m.bus, subject, question)
	if err := room.weigh(found(answer) - mostFound); err != nil {
		return answer, err
	}
	if fault.Is(err, fault.Unavailable) {
		return answer, errLookup.With(err)
	}
	return answer, err
}

// Sequence is the position of a message of the caller's account in the stream of its shard. It is a fault NotFound if
// the account has no such message.
func (m *Messages) Sequence(ctx context.Context, caller access.Caller, id streams.MessageID) (uint64, error) {
	account := caller.Account.ID
	// It is the first that comes after the one before it.
	q := request.Find{Account: account, Ref: id.String(), After: max(id, 1) - 1}
	found, err := lookUp[request.Found](ctx, m, caller, request.DispatcherFind(m.shards.Of(account)), q)
	if err != nil {
		return 0, err
	}
	if found.Group != nil {
		for _, m := range found.Group.Messages {
			if m.ID == id {
				return m.Seq, nil
			}
		}
	}
	return 0, errNoGroup
}

// Browse asks for groups by when they were accepted.
type Browse struct {
	Caller   access.Caller
	From, To time.Time // To is not included; zero: open
	States   []streams.State
	Device   streams.DeviceID
	Oldest   bool // the oldest first
	Content  bool // with texts and data
	Offset   int
	Limit    int // 1 to 100
}

// Groups gives a page of groups, and how many there are in all. It counts up to 100,000 and no further.
func (m *Messages) Groups(ctx context.Context, q Browse) ([]Group, int, error) {
	account := q.Caller.Account.ID
	got, err := lookUp[request.Browsed](ctx, m, q.Caller, request.DispatcherBrowse(m.shards.Of(account)), request.Browse{
		Account: account, From: q.From, To: q.To, States: q.States, Device: q.Device,
		Oldest: q.Oldest, Content: q.Content, Offset: q.Offset, Limit: q.Limit,
	})
	if err != nil {
		return nil, 0, err
	}
	groups := make([]Group, len(got.Groups))
	for i, g := range got.Groups {
		if err := m.rest(ctx, q.Caller, &g); err != nil {
			return nil, 0, err
		}
		groups[i] = readGroup(g)
	}
	return groups, got.Total, nil
}

// Cancel cancels the messages of a group that no phone has yet, and gives the group as it is then. It is a fault
// Conflict if there are none of them, NotFound if there is no such group.
func (m *Messages) Cancel(ctx context.Context, caller access.Caller, ref string) (Group, error) {
	group, err := m.Group(ctx, caller, ref)
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
		decided, err := lookUp[request.Decided](ctx, m, caller, request.DispatcherCancel(m.shards.Of(account)), q)
		if err != nil {
			return group, err
		}
		changed = append(changed, decided.Changed...)
	}
	if len(changed) == 0 {
		return group, errNotWaiting
	}
	now := m.now().UTC()
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

// readGroup reads a dispatcher's answer. A message whose event cannot be read any more has no content.
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
