package operator

import (
	"context"
	"io"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/table"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

type messageShow struct {
	server
	asJSON
	ID      string `arg:"" help:"Id of the message, or the one that its sender gave or was given."`
	Account string `placeholder:"NAME" help:"Name of the account; then its senders' ids go before the others."`
}

func (messageShow) Help() string {
	return `It takes the ids of every dialect: the message's own, a sender's id of its messages, and the number that an SMS Nodes
sender was given.

Example:

    trunkline message show 01979f3a2b400000`
}

// messageView is a message as it is printed.
type messageView struct {
	request.Message
	AccountName string           `json:"account_name"`
	Members     []memberView     `json:"members,omitempty"` // of its group, if there are others
	Timeline    []request.Moment `json:"timeline"`
}

// memberView is a message of the same group.
type memberView struct {
	ID     streams.MessageID `json:"id"`
	State  streams.State     `json:"state"`
	Reason string            `json:"reason,omitempty"`
}

func (c *messageShow) Run(ctx context.Context, t *Terminal) error {
	book, b, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	shards, err := streams.FindShards(ctx, b.JS)
	if err != nil {
		return err
	}
	f := finder{bus: b, book: book, shards: shards}
	shown, err := f.find(ctx, c.Account, c.ID)
	if err != nil {
		return err
	}
	view := messageView{Message: *shown.Message, Timeline: shown.Timeline}
	if view.AccountName, err = book.NameOf(ctx, view.Account); err != nil {
		return err
	}
	if view.Group != 0 {
		if view.Members, err = f.members(ctx, view.Message); err != nil {
			return err
		}
	}
	if c.JSON {
		return t.printJSON(view)
	}
	return view.print(t.Out)
}

func (v messageView) print(out io.Writer) error {
	var p table.Table
	p.Row("id", v.ID)
	p.Row("account", v.AccountName)
	if v.Name != "" {
		p.Row("sender's id", v.Name)
	}
	if v.Group != 0 {
		p.Row("group", v.Group)
	}
	p.Row("lane", v.Lane)
	p.Row("state", v.State)
	if v.Reason != "" {
		p.Row("reason", v.Reason)
	}
	p.Row("round", v.Round)
	p.Row("handed out", v.Offers)
	if v.Lease != 0 {
		p.Row("lease", v.Lease)
	}
	if v.Device != "" {
		p.Row("device", v.Device)
	}
	timeRow(&p, "leased until", v.Until)
	timeRow(&p, "due", v.Due)
	timeRow(&p, "valid until", v.Valid)
	p.Line("")
	p.Row("TIME", "WHAT", "EVENT", "STREAM", "SEQ")
	for _, m := range v.Timeline {
		p.Row(formatTime(m.At), m.What, m.Kind, m.Stream, m.Seq)
	}
	if len(v.Members) > 0 {
		p.Line("")
		p.Row("MESSAGE OF THE GROUP", "STATE", "REASON")
	}
	for _, m := range v.Members {
		p.Row(m.ID, m.State, m.Reason)
	}
	return p.Print(out)
}

// timeRow adds a row, unless there is no such time.
func timeRow(p *table.Table, name string, t time.Time) {
	if !t.IsZero() {
		p.Row(name, formatTime(t))
	}
}
