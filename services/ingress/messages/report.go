package messages

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
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Limit: a dispatcher has 2 s to say what a report changed. Beyond it: `updated` is the number of well-formed items.
// Used up by: a dispatcher that is slow. Hurts: nobody: the report is stored, and only its answer says less.
// Test: TestIngress_MuteDispatcher.
const changedWithin = 2 * time.Second

// Report is what a phone says happened to messages.
type Report struct {
	Caller access.Caller
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

// Problem says why an item changed nothing. A repeat of what is known already is no problem.
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

// Report stores what a phone says, and gives what that changed.
func (m *Messages) Report(ctx context.Context, cmd Report) (Reported, error) {
	account, name := cmd.Caller.Account.ID, cmd.Device
	device, err := m.fleet.Contact(ctx, account, name)
	if err != nil {
		// What happened is stored whoever reports it. The id still shows whether it is the phone that holds the lease.
		m.metrics.unnamed.Inc()
		device, name = streams.DeviceIDOf(account, name), ""
	}
	entries, reported := readItems(cmd.Items, m.absent(ctx, account, cmd.Items))
	if len(entries) == 0 {
		return reported, nil
	}
	e := event.Reported{At: m.now().UTC().Truncate(time.Millisecond), Device: device, Name: name}
	var changes []request.Change
	if m.repeats.take(account, entries, m.now()) {
		changes, err = m.storeUnasked(ctx, account, e, entries)
	} else {
		changes, err = m.storeAsked(ctx, account, e, entries)
	}
	if err != nil {
		return Reported{}, err
	}
	if changes == nil { // no dispatcher says what changed
		reported.Updated = len(entries)
		return reported, nil
	}
	for i, change := range changes {
		switch why, problem := judge(change, entries[i].State); {
		case change.Known && change.Changed:
			reported.Updated++
		case problem:
			reported.Problems = append(reported.Problems, Problem{entries[i].index, why})
		}
	}
	slices.SortFunc(reported.Problems, func(a, b Problem) int { return cmp.Compare(a.Index, b.Index) })
	return reported, nil
}

// storeUnasked stores a report that most likely changes something, and counts the items that did not.
func (m *Messages) storeUnasked(ctx context.Context, account streams.AccountID, e event.Reported, entries []entry) ([]request.Change, error) {
	changes, err := m.storeEntries(ctx, account, e, entries)
	idle := 0
	for _, change := range changes {
		if !change.Known || !change.Changed {
			idle++
		}
	}
	m.repeats.giveBack(account, len(entries)-idle, m.now())
	return changes, err
}

// storeAsked asks a dispatcher what a report would change, and stores only the items that are worth it. Such reports of
// one account follow each other: the answer about one has to count those before it. storeAsked gives what the report
// changed, nil if no dispatcher says so.
func (m *Messages) storeAsked(ctx context.Context, account streams.AccountID, e event.Reported, entries []entry) ([]request.Change, error) {
	unlock, err := m.repeats.locks.Lock(ctx, account)
	if err != nil {
		return nil, err
	}
	unlock = sync.OnceFunc(unlock)
	defer unlock()
	var changes []request.Change
	answered := false
	if !m.repeats.isSilent(m.now()) {
		if changes, answered = m.preview(ctx, account, e.Device, entries); !answered {
			m.repeats.noteSilence(m.now())
		}
	}
	if !answered {
		unlock() // without an answer there is no order to keep
	}
	var worth []entry
	var positions []int
	for i, one := range entries {
		if m.worthStoring(account, one, changes, i, answered) {
			worth, positions = append(worth, one), append(positions, i)
		}
	}
	m.metrics.repeated.Add(float64(len(entries) - len(worth)))
	if len(worth) == 0 {
		if !answered { // all of it is in the stream, and no dispatcher says what it changed
			return nil, nil
		}
		return changes, nil
	}
	changed, err := m.storeEntries(ctx, account, e, worth)
	if err != nil || !answered {
		return nil, err
	}
	for i, change := range changed {
		changes[positions[i]] = change
	}
	return changes, nil
}

// worthStoring says whether an item is stored, by what a dispatcher says of it, if one answered. A message that is
// delivered stays so, and of an unknown one there is nothing to keep.
func (m *Messages) worthStoring(account streams.AccountID, one entry, changes []request.Change, i int, answered bool) bool {
	switch {
	case !answered:
		return !one.State.Success() || !m.repeats.isStored(account, one, m.now())
	case changes[i].Changed:
		return true
	case !changes[i].Known, changes[i].State == streams.Delivered:
		return false
	default:
		return m.repeats.mayRepeat(account, one, m.now())
	}
}

// storeEntries stores items as one report, and gives what it changed, nil if no dispatcher says so.
func (m *Messages) storeEntries(ctx context.Context, account streams.AccountID, e event.Reported, entries []entry) ([]request.Change, error) {
	e.Messages = make([]event.Report, len(entries))
	for i, one := range entries {
		e.Messages[i] = one.Report
	}
	seq, err := m.storeReport(ctx, account, e)
	if err != nil {
		return nil, storeFault(err)
	}
	m.repeats.remember(account, entries, m.now())
	m.metrics.reported.Add(float64(len(entries)))
	changes, ok := m.changed(ctx, account, e.Device, seq, e.Messages)
	if !ok {
		return nil, nil
	}
	return changes, nil
}

// entry is an item with its position in the request.
type entry struct {
	event.Report
	index int
}

// readItems makes one entry for each message that a request names. If it names one more than once, the furthest state
// counts, and a failure after a success is the same problem as in a later request. The account does not have the messages
// in absent.
func readItems(items []Item, absent map[streams.MessageID]bool) ([]entry, Reported) {
	var reported Reported
	problem := func(index int, why Why) {
		reported.Problems = append(reported.Problems, Problem{index, why})
	}
	entries := make([]entry, 0, len(items))
	positions := make(map[streams.MessageID]int, len(items))
	for i, item := range items {
		id, err := streams.ParseMessageID(item.ID)
		if err != nil || absent[id] {
			problem(i, Unknown)
			continue
		}
		one := entry{event.Report{ID: id, State: item.State, Error: errorText(item.Error)}, i}
		at, again := positions[id]
		switch {
		case !again:
			positions[id] = len(entries)
			entries = append(entries, one)
		case entries[at].State.Success() && !one.State.Success():
			problem(i, Succeeded)
		case one.State >= entries[at].State:
			entries[at] = one
		}
	}
	return entries, reported
}

// errorText is a phone's error text as it is stored: without control characters, and short.
func errorText(text string) string {
	text = strings.Map(func(char rune) rune {
		if char < ' ' {
			return ' '
		}
		return char
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), event.MaxError)], "") // without what is left of a character
}

// storeReport stores a report, and gives its sequence: 0 if all that is known is that it is stored.
func (m *Messages) storeReport(ctx context.Context, account streams.AccountID, e event.Reported) (uint64, error) {
	shard := m.shards.Of(account)
	msg, err := event.Message(streams.ReportSubject(shard, account), e)
	if err != nil {
		return 0, err
	}
	// By this id the engine recognises a repeat after an unknown outcome.
	msg.Header[jetstream.MsgIDHeader] = []string{nuid.Next()}
	ctx, cancel := context.WithTimeout(bus.While(httpx.Through(ctx)), publishWithin)
	defer cancel()
	stored, err := m.status[shard].Commit(ctx, []*nats.Msg{msg})
	if errors.Is(err, bus.ErrDuplicate) {
		msg.Header[jetstream.MsgIDHeader] = []string{nuid.Next()}
		stored, err = m.status[shard].Commit(ctx, []*nats.Msg{msg})
	}
	return stored.First, err
}

// changed asks a dispatcher what the report with a sequence changed. It is false if none answers in time.
func (m *Messages) changed(ctx context.Context, account streams.AccountID, device streams.DeviceID, seq uint64, reports []event.Report) ([]request.Change, bool) {
	if seq == 0 {
		return nil, false
	}
	q := request.ChangedBy{Account: account, Device: device, Seq: seq, Messages: make([]streams.MessageID, len(reports))}
	for i, one := range reports {
		q.Messages[i] = one.ID
	}
	ctx, cancel := context.WithTimeout(ctx, changedWithin)
	defer cancel()
	changed, err := bus.Call[request.Changed](ctx, m.bus, request.DispatcherChanged(m.shards.Of(account)), q)
	return changed.Messages, err == nil && len(changed.Messages) == len(reports)
}

// preview asks a dispatcher what a report would change. It is false if none answers in time.
func (m *Messages) preview(ctx context.Context, account streams.AccountID, device streams.DeviceID, entries []entry) ([]request.Change, bool) {
	q := request.Preview{Account: account, Device: device, Messages: make([]request.Report, len(entries))}
	for i, one := range entries {
		q.Messages[i] = request.Report{ID: one.ID, State: one.State}
	}
	ctx, cancel := context.WithTimeout(ctx, changedWithin)
	defer cancel()
	would, err := bus.Call[request.Changed](ctx, m.bus, request.DispatcherPreview(m.shards.Of(account)), q)
	return would.Messages, err == nil && len(would.Messages) == len(entries)
}

// judge says why a report of a state did not change its message, if that is a problem.
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
