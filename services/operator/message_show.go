package operator

import (
	"context"
	"io"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

type messageShow struct {
	server
	asJSON
	ID string `arg:"" help:"Id of the message."`
}

func (messageShow) Help() string {
	return "Example:\n\n    trunkline message show 01979f3a2b400000"
}

// messageView is a message as it is printed.
type messageView struct {
	request.Message
	AccountName string           `json:"account_name"`
	Timeline    []request.Moment `json:"timeline"`
}

func (c *messageShow) Run(ctx context.Context, t *Terminal) error {
	id, err := parseMessage(c.ID)
	if err != nil {
		return err
	}
	book, b, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	shards, err := streams.FindShards(ctx, b.JS)
	if err != nil {
		return err
	}
	shown, err := findMessage(ctx, b, shards, id)
	if err != nil {
		return err
	}
	view := messageView{Message: *shown.Message, Timeline: shown.Timeline}
	if view.AccountName, err = book.NameOf(ctx, view.Account); err != nil {
		return err
	}
	if c.JSON {
		return t.printJSON(view)
	}
	return view.print(t.Out)
}

func (v messageView) print(out io.Writer) error {
	var p page
	p.row("id", v.ID)
	p.row("account", v.AccountName)
	p.row("lane", v.Lane)
	p.row("state", v.State)
	if v.Reason != "" {
		p.row("reason", v.Reason)
	}
	p.row("round", v.Round)
	p.row("handed out", v.Offers)
	if v.Lease != 0 {
		p.row("lease", v.Lease)
	}
	if v.Device != "" {
		p.row("device", v.Device)
	}
	if !v.Until.IsZero() {
		p.row("leased until", formatTime(v.Until))
	}
	p.gap()
	p.row("TIME", "WHAT", "EVENT", "STREAM", "SEQ")
	for _, m := range v.Timeline {
		p.row(formatTime(m.At), m.What, m.Kind, m.Stream, m.Seq)
	}
	return p.print(out)
}
