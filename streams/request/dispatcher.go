package request

import (
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

func dispatcher(shard streams.Shard, verb string) string {
	return "trunkline.dispatcher." + shard.String() + "." + verb
}

// DispatcherPull is the subject of Pull → Pulled.
func DispatcherPull(shard streams.Shard) string { return dispatcher(shard, "pull") }

// DispatcherHangup is the subject of Hangup, which every dispatcher hears and
// none answers.
func DispatcherHangup(shard streams.Shard) string { return dispatcher(shard, "hangup") }

// DispatcherChanged is the subject of ChangedBy → Changed.
func DispatcherChanged(shard streams.Shard) string { return dispatcher(shard, "changed") }

// DispatcherPreview is the subject of Preview → Changed.
func DispatcherPreview(shard streams.Shard) string { return dispatcher(shard, "preview") }

// DispatcherShow is the subject of Show → Shown.
func DispatcherShow(shard streams.Shard) string { return dispatcher(shard, "show") }

// DispatcherList is the subject of List → Listed.
func DispatcherList(shard streams.Shard) string { return dispatcher(shard, "list") }

// DispatcherCancel is the subject of Decide → Decided, which cancels.
func DispatcherCancel(shard streams.Shard) string { return dispatcher(shard, "cancel") }

// DispatcherRequeue is the subject of Decide → Decided, which offers again.
func DispatcherRequeue(shard streams.Shard) string { return dispatcher(shard, "requeue") }

// DispatcherFind is the subject of Find → Found.
func DispatcherFind(shard streams.Shard) string { return dispatcher(shard, "find") }

// DispatcherBrowse is the subject of Browse → Browsed.
func DispatcherBrowse(shard streams.Shard) string { return dispatcher(shard, "browse") }

// Pull asks for up to Limit messages for a phone.
type Pull struct {
	Account  streams.AccountID   `json:"account"`
	Device   streams.DeviceID    `json:"device,omitzero"` // zero: the phone gave no name
	Name     string              `json:"name,omitempty"`
	Limit    int                 `json:"limit"`
	Other    bool                `json:"other,omitempty"` // the phone can carry the class other
	Wait     time.Duration       `json:"wait,omitempty"`  // how long to wait for work, in nanoseconds
	Poll     string              `json:"poll,omitempty"`  // names the wait, for a Hangup
	Lease    time.Duration       `json:"lease"`
	Attempts int                 `json:"attempts"`
	Policy   streams.LapsePolicy `json:"policy"`
	// Bytes is the most that the messages may have, if it is not 0: a page that
	// has more is not given, unless Fit asks for what of it fits.
	Bytes int  `json:"bytes,omitempty"`
	Fit   bool `json:"fit,omitempty"`
}

// Hangup ends the wait of a phone that has gone.
type Hangup struct {
	Poll string `json:"poll"`
}

// Pulled is a page of messages, leased to the phone.
type Pulled struct {
	Lease    streams.LeaseID `json:"lease,omitzero"` // zero: there is no work
	Messages []Outgoing      `json:"messages"`
	// Crowded says that there is no work, and that the dispatcher did not wait for
	// any: too many of the account's phones do.
	Crowded bool `json:"crowded,omitempty"`
	// Needs says that there is work, and no page: it has so many bytes.
	Needs int `json:"needs,omitempty"`
}

// Outgoing is a message on its way to a phone. Body is the message's enqueued
// event as it stands in the stream.
type Outgoing struct {
	ID   streams.MessageID `json:"id"`
	Body []byte            `json:"body"`
}

// ChangedBy asks what a stored report changed.
type ChangedBy struct {
	Account  streams.AccountID   `json:"account"`
	Device   streams.DeviceID    `json:"device,omitzero"`
	Seq      uint64              `json:"seq"` // in the STATUS stream
	Messages []streams.MessageID `json:"messages"`
}

// Preview asks what a report would change if it were stored now.
type Preview struct {
	Account  streams.AccountID `json:"account"`
	Device   streams.DeviceID  `json:"device,omitzero"`
	Messages []Report          `json:"messages"`
}

// Report is what a phone says of one message.
type Report struct {
	ID    streams.MessageID `json:"id"`
	State streams.State     `json:"state"`
}

// Changed says for each message asked for what the report did to it.
type Changed struct {
	Messages []Change `json:"messages"`
}

// Change is what a report did to one message.
type Change struct {
	Known   bool          `json:"known"`   // the account has this message
	Changed bool          `json:"changed"` // by this report; in a preview, it would be
	State   streams.State `json:"state"`
}

// Show asks for one message, of one account or, where Account is zero, of any.
type Show struct {
	Account streams.AccountID `json:"account,omitzero"`
	ID      streams.MessageID `json:"id"`
}

// Shown is one message with its events; there are none where it is unknown.
type Shown struct {
	Message  *Message `json:"message"`
	Timeline []Moment `json:"timeline"`
}

// Message is where a message stands.
type Message struct {
	ID      streams.MessageID `json:"id"`
	Account streams.AccountID `json:"account"`
	Lane    string            `json:"lane"`
	State   streams.State     `json:"state"`
	Round   int               `json:"round"`
	Offers  int               `json:"offers"` // how often it was handed out
	Reason  string            `json:"reason,omitempty"`
	Lease   streams.LeaseID   `json:"lease,omitzero"`
	Device  string            `json:"device,omitempty"` // name or id of the last lease's device
	Until   time.Time         `json:"until,omitzero"`   // end of a lease that runs
	Due     time.Time         `json:"due,omitzero"`     // while it is scheduled
	Valid   time.Time         `json:"valid,omitzero"`   // the end of its validity
	Group   streams.MessageID `json:"group,omitzero"`   // the first message of its group, if it has others
	Name    string            `json:"name,omitempty"`   // the sender's id of the group
}

// Moment is one event in a message's life.
type Moment struct {
	At     time.Time `json:"at"`
	Stream string    `json:"stream"`
	Seq    uint64    `json:"seq"`
	Kind   string    `json:"kind"`
	What   string    `json:"what"` // in words, without text or number
}

// List asks for messages of an account, newest first.
type List struct {
	Account streams.AccountID `json:"account"`
	States  []streams.State   `json:"states,omitempty"` // none: all
	Before  streams.MessageID `json:"before,omitzero"`  // only older ones
	Limit   int               `json:"limit"`
}

// Listed is a page of a List.
type Listed struct {
	Messages []Message `json:"messages"`
}

// Find asks for a group.
type Find struct {
	Account streams.AccountID `json:"account"`
	Ref     string            `json:"ref"`             // the sender's id of it, or else the id of any of its messages
	After   streams.MessageID `json:"after,omitzero"`  // only its messages after this one, by which it is found without Ref
	Older   bool              `json:"older,omitempty"` // what was stored just now need not be found
}

// Found is the group; nil where it is unknown.
type Found struct {
	Group *Group `json:"group"`
}

// Browse asks for groups of an account by when they were accepted.
type Browse struct {
	Account streams.AccountID `json:"account"`
	From    time.Time         `json:"from,omitzero"`
	To      time.Time         `json:"to,omitzero"`      // not including it
	States  []streams.State   `json:"states,omitempty"` // of the groups; none: all
	Device  streams.DeviceID  `json:"device,omitzero"`
	Oldest  bool              `json:"oldest,omitempty"` // the oldest first, not the newest
	Content bool              `json:"content,omitempty"`
	Offset  int               `json:"offset,omitempty"`
	Limit   int               `json:"limit"`
}

// Browsed is a page of a Browse.
type Browsed struct {
	Groups []Group `json:"groups"`
	Total  int     `json:"total"` // how many there are, as far as was counted
}

// Group is the messages of one request with several recipients, or a message
// alone.
type Group struct {
	ID       streams.MessageID `json:"id"` // of the first message
	Name     string            `json:"name,omitempty"`
	State    streams.State     `json:"state"`
	Device   streams.DeviceID  `json:"device,omitzero"` // the target's, or the last lease's
	Messages []Member          `json:"messages"`        // as many as an answer has room for
	More     bool              `json:"more,omitempty"`  // there are messages after them
}

// Rest asks for the messages of a group that were not in an answer, until it
// has them all.
func (g *Group) Rest(account streams.AccountID, ask func(Find) (Found, error)) error {
	for g.More {
		found, err := ask(Find{Account: account, After: g.Messages[len(g.Messages)-1].ID})
		if err != nil {
			return err
		}
		next := found.Group
		if next == nil || len(next.Messages) == 0 { // forgotten meanwhile
			next = &Group{State: g.State, Device: g.Device}
		}
		g.State, g.Device, g.More = next.State, next.Device, next.More
		g.Messages = append(g.Messages, next.Messages...)
	}
	return nil
}

// Member is a message of a group. Body is its enqueued or scheduled event,
// without text and data where no content was asked for; empty if it cannot be
// read any more.
type Member struct {
	ID     streams.MessageID `json:"id"`
	Seq    uint64            `json:"seq"` // of its event
	State  streams.State     `json:"state"`
	Reason string            `json:"reason,omitempty"`
	Steps  []Step            `json:"steps,omitempty"`
	Body   []byte            `json:"body,omitempty"`
}

// Step is when a message came to a state.
type Step struct {
	At    time.Time     `json:"at"`
	State streams.State `json:"state"`
}

// Decide names messages to decide about.
type Decide struct {
	Account  streams.AccountID   `json:"account"`
	Messages []streams.MessageID `json:"messages"`
	Waiting  bool                `json:"waiting,omitempty"` // cancel only those that no phone has
}

// Decided says which were changed; the others were unknown or beyond it.
type Decided struct {
	Changed []streams.MessageID `json:"changed"`
}
