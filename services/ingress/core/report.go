package core

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// changedWithin is how long a dispatcher may take to say what a report changed. Used up by a dispatcher that
// is slow: the report is stored, and only its answer says less.
const changedWithin = 2 * time.Second

// Report is what a phone says happened to messages.
type Report struct {
	Caller Caller
	Device string // the phone's name, empty if it gave none
	Items  []Item // at most event.MaxItems
}

// Item is what happened to one message.
type Item struct {
	ID    string
	State streams.State // sent, delivered or failed
	Error string
}

// Reported says what a report did. The report is stored whatever the problems.
type Reported struct {
	Updated  int // messages it changed
	Problems []Problem
}

// Problem says why an item changed nothing. An item that repeats what is known
// already is none.
type Problem struct {
	Index int // of the item
	Why   Why
}

// Why is the reason of a Problem.
type Why int

// The reasons.
const (
	Unknown   Why = iota // the account has no such message
	Succeeded            // the message was sent already
	Over                 // the message has been cancelled or has expired
	NotHeld              // the message is not with this phone
)

// Report stores what a phone says and tells what it changed.
func (c *Core) Report(ctx context.Context, cmd Report) (Reported, error) {
	reported, err := c.report(ctx, cmd)
	return reported, c.refuse(err)
}

func (c *Core) report(ctx context.Context, cmd Report) (Reported, error) {
	account, name := cmd.Caller.Account.ID, cmd.Device
	device, err := c.devices.contact(ctx, account, name)
	if err != nil {
		// What happened is stored whoever says so. The id still tells whether it is the phone that holds the lease.
		c.metrics.unnamed.Inc()
		device, name = streams.DeviceIDOf(account, name), ""
	}
	said, reported := c.read(cmd.Items, c.absent(ctx, account, cmd.Items))
	if len(said) == 0 {
		return reported, nil
	}
	now := c.now().UTC().Truncate(time.Millisecond)
	changes, err := c.tell(ctx, account, event.Reported{At: now, Device: device, Name: name}, said)
	if err != nil {
		return Reported{}, err
	}
	if changes == nil {
		reported.Updated = len(said)
		return reported, nil
	}
	for i, change := range changes {
		switch why, problem := judge(change, said[i].State); {
		case change.Known && change.Changed:
			reported.Updated++
		case problem:
			reported.Problems = append(reported.Problems, Problem{said[i].index, why})
		}
	}
	slices.SortFunc(reported.Problems, func(a, b Problem) int { return cmp.Compare(a.Index, b.Index) })
	return reported, nil
}

// tell stores what a phone says and gives what it changed, nil if no dispatcher says so. It is stored unasked where it
// most likely changes something: the account's other reports follow each other, and of them is stored what changes
// something, and of the rest little.
func (c *Core) tell(ctx context.Context, account streams.AccountID, e event.Reported, all []said) ([]request.Change, error) {
	if c.repeats.take(account, all, c.now()) {
		changes, err := c.storeSaid(ctx, account, e, all)
		idle := 0
		for _, change := range changes {
			if !change.Known || !change.Changed {
				idle++
			}
		}
		c.repeats.settle(account, len(all)-idle, c.now())
		return changes, err
	}
	giveBack, err := c.repeats.turns.Lock(ctx, account)
	if err != nil {
		return nil, err
	}
	giveBack = sync.OnceFunc(giveBack)
	defer giveBack()
	var changes []request.Change
	answered := false
	if !c.repeats.silent(c.now()) {
		if changes, answered = c.preview(ctx, account, e.Device, all); !answered {
			c.repeats.unanswered(c.now())
		}
	}
	if !answered {
		giveBack() // what is stored unseen need not follow anything
	}
	var worth []said
	var places []int
	for i, one := range all {
		if c.worthStoring(account, one, changes, i, answered) {
			worth, places = append(worth, one), append(places, i)
		}
	}
	c.metrics.repeated.Add(float64(len(all) - len(worth)))
	if len(worth) == 0 {
		if !answered { // all of it stands in the stream, and nobody says what it changed
			return nil, nil
		}
		return changes, nil
	}
	changed, err := c.storeSaid(ctx, account, e, worth)
	if err != nil || !answered {
		return nil, err
	}
	for i, change := range changed {
		changes[places[i]] = change
	}
	return changes, nil
}

// worthStoring says whether an item is to be stored, by what a dispatcher says of it, if one does. One that is
// delivered stays so, and of an unknown message there is nothing to keep.
func (c *Core) worthStoring(account streams.AccountID, one said, changes []request.Change, i int, answered bool) bool {
	switch {
	case !answered:
		return !one.State.Success() || !c.repeats.stored(account, one, c.now())
	case changes[i].Changed:
		return true
	case !changes[i].Known, changes[i].State == streams.Delivered:
		return false
	default:
		return c.repeats.again(account, one, c.now())
	}
}

// storeSaid stores a report and gives what it changed, nil if no dispatcher says so.
func (c *Core) storeSaid(ctx context.Context, account streams.AccountID, e event.Reported, all []said) ([]request.Change, error) {
	e.Messages = make([]event.Report, len(all))
	for i, one := range all {
		e.Messages[i] = one.Report
	}
	seq, err := c.storeReport(ctx, account, e)
	if err != nil {
		return nil, storeFault(err)
	}
	c.repeats.remember(account, all, c.now())
	c.metrics.reported.Add(float64(len(all)))
	changes, ok := c.changed(ctx, account, e.Device, seq, e.Messages)
	if !ok {
		return nil, nil
	}
	return changes, nil
}

// said is an item with its place in the request.
type said struct {
	event.Report
	index int
}

// read makes of the items one word for each message. Where the request speaks
// of one more than once, the furthest state counts, and a failure after a
// success is the same problem as in a later request. Those that are absent are no
// messages of the account's.
func (c *Core) read(items []Item, absent map[streams.MessageID]bool) ([]said, Reported) {
	var reported Reported
	problem := func(index int, why Why) {
		reported.Problems = append(reported.Problems, Problem{index, why})
	}
	all := make([]said, 0, len(items))
	places := make(map[streams.MessageID]int, len(items))
	for i, item := range items {
		id, err := streams.ParseMessageID(item.ID)
		if err != nil || absent[id] {
			problem(i, Unknown)
			continue
		}
		one := said{event.Report{ID: id, State: item.State, Error: errorText(item.Error)}, i}
		place, again := places[id]
		switch {
		case !again:
			places[id] = len(all)
			all = append(all, one)
		case all[place].State.Success() && !one.State.Success():
			problem(i, Succeeded)
		case one.State >= all[place].State:
			all[place] = one
		}
	}
	return all, reported
}

// errorText is a phone's error text as it is kept: without control characters,
// and short.
func errorText(text string) string {
	text = strings.Map(func(char rune) rune {
		if char < ' ' {
			return ' '
		}
		return char
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), event.MaxError)], "") // without what is left of a character
}

// storeReport gives the report's sequence, 0 if only that it is stored is known.
func (c *Core) storeReport(ctx context.Context, account streams.AccountID, e event.Reported) (uint64, error) {
	shard := c.shards.Of(account)
	msg, err := event.Message(streams.ReportSubject(shard, account), e)
	if err != nil {
		return 0, err
	}
	// By its id a repeat after an unknown outcome is known as one.
	msg.Header[jetstream.MsgIDHeader] = []string{nuid.Next()}
	ctx, cancel := context.WithTimeout(bus.While(httpx.Through(ctx)), publishWithin)
	defer cancel()
	stored, err := c.status[shard].Commit(ctx, []*nats.Msg{msg})
	if errors.Is(err, bus.ErrDuplicate) {
		msg.Header[jetstream.MsgIDHeader] = []string{nuid.Next()}
		stored, err = c.status[shard].Commit(ctx, []*nats.Msg{msg})
	}
	return stored.First, err
}

// changed asks a dispatcher what the report did. It is stored whether one
// answers or not.
func (c *Core) changed(ctx context.Context, account streams.AccountID, device streams.DeviceID, seq uint64, said []event.Report) ([]request.Change, bool) {
	if seq == 0 {
		return nil, false
	}
	q := request.ChangedBy{Account: account, Device: device, Seq: seq, Messages: make([]streams.MessageID, len(said))}
	for i, one := range said {
		q.Messages[i] = one.ID
	}
	ctx, cancel := context.WithTimeout(ctx, changedWithin)
	defer cancel()
	changed, err := bus.Call[request.Changed](ctx, c.bus, request.DispatcherChanged(c.shards.Of(account)), q)
	return changed.Messages, err == nil && len(changed.Messages) == len(said)
}

// preview asks a dispatcher what a report would change.
func (c *Core) preview(ctx context.Context, account streams.AccountID, device streams.DeviceID, all []said) ([]request.Change, bool) {
	q := request.Preview{Account: account, Device: device, Messages: make([]request.Report, len(all))}
	for i, one := range all {
		q.Messages[i] = request.Report{ID: one.ID, State: one.State}
	}
	ctx, cancel := context.WithTimeout(ctx, changedWithin)
	defer cancel()
	would, err := bus.Call[request.Changed](ctx, c.bus, request.DispatcherPreview(c.shards.Of(account)), q)
	return would.Messages, err == nil && len(would.Messages) == len(all)
}

// judge says why a report of a state did not change its message, if that is a
// problem.
func judge(change request.Change, state streams.State) (Why, bool) {
	switch {
	case !change.Known:
		return Unknown, true
	case change.Changed, change.State == state:
		return 0, false
	case state.Success():
		return 0, false // it is at least that far
	case change.State.Success():
		return Succeeded, true
	case change.State.Terminal():
		return Over, true
	default:
		return NotHeld, true
	}
}
