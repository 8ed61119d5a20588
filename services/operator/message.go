package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/table"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Message are the commands about messages.
type Message struct {
	List    messageList    `cmd:"" help:"List an account's messages, newest first."`
	Show    messageShow    `cmd:"" help:"Show where a message stands and all that happened to it."`
	Requeue messageRequeue `cmd:"" help:"Offer messages again that failed, expired or were cancelled, or that a phone keeps after its lease."`
	Cancel  messageCancel  `cmd:"" help:"Take messages back that no phone has sent."`
}

type messageList struct {
	server
	asJSON
	Account string   `default:"default" placeholder:"NAME" help:"Name of the account (default \"default\")."`
	State   []string `placeholder:"STATE" help:"Only messages in these states, as in failed,expired."`
	Before  string   `placeholder:"ID" help:"Only messages older than this one: the next page."`
	Limit   int      `default:"50" help:"How many at most, up to 1000."`
}

func (messageList) Help() string {
	return "Example:\n\n    trunkline message list --account shop --state failed --limit 20"
}

// Limit: message list shows at most 1,000 messages. Beyond it: the command fails.
// Used up by: the operator. Hurts: nobody else. Test: TestScripts.
const maxList = 1000

func (c *messageList) Run(ctx context.Context, t *Terminal) error {
	list, err := c.list()
	if err != nil {
		return err
	}
	book, b, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	if _, err := book.Find(ctx, c.Account); err != nil {
		return err
	}
	shards, err := streams.FindShards(ctx, b.JS)
	if err != nil {
		return err
	}
	listed, err := call[request.Listed](ctx, b, request.DispatcherList(shards.Of(list.Account)), list)
	if err != nil {
		return err
	}
	if c.JSON {
		return t.printJSON(append([]request.Message{}, listed.Messages...))
	}
	var p table.Table
	p.Row("ID", "CREATED", "STATE", "HANDED OUT", "DEVICE", "REASON")
	for _, m := range listed.Messages {
		p.Row(m.ID, formatTime(m.ID.Time()), m.State, m.Offers, m.Device, m.Reason)
	}
	return p.Print(t.Out)
}

func (c *messageList) list() (request.List, error) {
	list := request.List{Account: streams.AccountIDOf(c.Account), Limit: c.Limit}
	if c.Limit < 1 || c.Limit > maxList {
		return list, fmt.Errorf("limit: want 1 to %d", maxList)
	}
	for _, word := range c.State {
		var state streams.State
		if err := state.UnmarshalText([]byte(word)); err != nil {
			return list, fmt.Errorf("state %q: want one of %s", word, stateWords())
		}
		list.States = append(list.States, state)
	}
	if c.Before != "" {
		before, err := parseMessage(c.Before)
		if err != nil {
			return list, err
		}
		list.Before = before
	}
	return list, nil
}

func stateWords() string {
	var words []string
	for _, s := range streams.States() {
		words = append(words, s.String())
	}
	return strings.Join(words, ", ")
}

func parseMessage(text string) (streams.MessageID, error) {
	id, err := streams.ParseMessageID(text)
	if err != nil {
		return 0, fmt.Errorf("message id %q: want the 16 hex digits that `trunkline message list` prints", text)
	}
	return id, nil
}

// findMessage finds a message, whosever it is.
func findMessage(ctx context.Context, b *bus.Bus, shards streams.Shards, id streams.MessageID) (request.Shown, error) {
	shown, err := lookMessage(ctx, b, shards, id)
	if err == nil && shown.Message == nil {
		err = unknownMessage(id.String())
	}
	return shown, err
}

// lookMessage asks the dispatchers of every shard for a message. The answer is
// empty where it is unknown.
func lookMessage(ctx context.Context, b *bus.Bus, shards streams.Shards, id streams.MessageID) (request.Shown, error) {
	for _, shard := range shards.All() {
		shown, err := call[request.Shown](ctx, b, request.DispatcherShow(shard), request.Show{ID: id})
		if err != nil || shown.Message != nil {
			return shown, err
		}
	}
	return request.Shown{}, nil
}

func unknownMessage(ref string) error {
	return fmt.Errorf("message %s is not known: messages are forgotten after 30 days; see `trunkline message list`", ref)
}

type messageRequeue struct {
	server
	asJSON
	IDs []string `arg:"" name:"id" help:"Ids of messages."`
}

func (messageRequeue) Help() string {
	return "Example:\n\n    trunkline message requeue 01979f3a2b400000"
}

func (c *messageRequeue) Run(ctx context.Context, t *Terminal) error {
	return c.decide(ctx, t, c.JSON, c.IDs, "requeued", request.DispatcherRequeue)
}

type messageCancel struct {
	server
	asJSON
	IDs []string `arg:"" name:"id" help:"Ids of messages."`
}

func (messageCancel) Help() string {
	return "Example:\n\n    trunkline message cancel 01979f3a2b400000"
}

func (c *messageCancel) Run(ctx context.Context, t *Terminal) error {
	return c.decide(ctx, t, c.JSON, c.IDs, "cancelled", request.DispatcherCancel)
}

// decision says what became of one message.
type decision struct {
	ID      streams.MessageID `json:"id"`
	Changed bool              `json:"changed"`
	State   streams.State     `json:"state"` // before
}

// decide has the dispatchers decide about messages, one account after another.
func (s server) decide(ctx context.Context, t *Terminal, asJSON bool, texts []string, done string, subject func(streams.Shard) string) error {
	b, closeConn, err := s.dial()
	if err != nil {
		return err
	}
	defer closeConn()
	shards, err := streams.FindShards(ctx, b.JS)
	if err != nil {
		return err
	}
	byAccount := map[streams.AccountID][]streams.MessageID{}
	var decisions []decision
	for _, text := range texts {
		id, err := parseMessage(text)
		if err != nil {
			return err
		}
		shown, err := findMessage(ctx, b, shards, id)
		if err != nil {
			return err
		}
		account := shown.Message.Account
		byAccount[account] = append(byAccount[account], id)
		decisions = append(decisions, decision{ID: id, State: shown.Message.State})
	}
	for account, ids := range byAccount {
		decided, err := call[request.Decided](ctx, b, subject(shards.Of(account)), request.Decide{Account: account, Messages: ids})
		if err != nil {
			return err
		}
		for i := range decisions {
			decisions[i].Changed = decisions[i].Changed || slices.Contains(decided.Changed, decisions[i].ID)
		}
	}
	return t.printDecisions(asJSON, decisions, done)
}

func (t *Terminal) printDecisions(asJSON bool, decisions []decision, done string) error {
	if asJSON {
		return t.printJSON(decisions)
	}
	var p table.Table
	refused := 0
	for _, d := range decisions {
		if d.Changed {
			p.Row(d.ID, done)
			continue
		}
		refused++
		p.Row(d.ID, fmt.Sprintf("not %s: it is %v", done, d.State))
	}
	if err := p.Print(t.Out); err != nil {
		return err
	}
	if refused == len(decisions) {
		return errors.New("no message was changed: see `trunkline message show ID` for where one stands")
	}
	return nil
}
