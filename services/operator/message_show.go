package operator

import (
	"context"
	"fmt"
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
		return printJSON(t.Out, view)
	}
	return view.print(t.Out)
}

func (v messageView) print(out io.Writer) error {
	err := table(out, func(w io.Writer) {
		fmt.Fprintf(w, "id\t%v\naccount\t%s\nlane\t%s\nstate\t%v\n", v.ID, v.AccountName, v.Lane, v.State)
		if v.Reason != "" {
			fmt.Fprintf(w, "reason\t%s\n", v.Reason)
		}
		fmt.Fprintf(w, "round\t%d\nhanded out\t%d\n", v.Round, v.Offers)
		if v.Lease != 0 {
			fmt.Fprintf(w, "lease\t%v\n", v.Lease)
		}
		if v.Device != "" {
			fmt.Fprintf(w, "device\t%s\n", v.Device)
		}
		if !v.Until.IsZero() {
			fmt.Fprintf(w, "leased until\t%s\n", formatTime(v.Until))
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	return table(out, func(w io.Writer) {
		fmt.Fprintln(w, "TIME\tWHAT\tEVENT\tSTREAM\tSEQ")
		for _, m := range v.Timeline {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", formatTime(m.At), m.What, m.Kind, m.Stream, m.Seq)
		}
	})
}
