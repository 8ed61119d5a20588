package main

import (
	"context"
	"fmt"
	"os"

	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/trunkline-sms/trunkline/services/lab/demo"
	"github.com/trunkline-sms/trunkline/services/node"
	"github.com/trunkline-sms/trunkline/services/operator"
)

type demoCommand struct {
	Messages int     `default:"10000" help:"Messages to send."`
	Batch    int     `default:"10" help:"Messages of one request."`
	Senders  int     `default:"20" help:"Senders that burst at the same time."`
	Phones   int     `default:"50" help:"Simulated phones."`
	Accounts int     `default:"4" help:"Accounts that senders and phones are spread over."`
	Fail     float64 `default:"0.02" help:"Share of messages that phones fail to send."`
	Log      bool    `help:"Print the server's log, too."`
}

func (demoCommand) Help() string {
	return `Exits 1 if a message was lost or handed out twice.

Example:

    trunkline demo --messages 50000 --phones 200`
}

func (c *demoCommand) Run(ctx context.Context, t *operator.Terminal) error {
	o := demo.DefaultOptions()
	o.Messages, o.Batch, o.Senders, o.Phones, o.Accounts, o.Fail = c.Messages, c.Batch, c.Senders, c.Phones, c.Accounts, c.Fail
	level := zapcore.ErrorLevel
	if c.Log {
		level = zapcore.InfoLevel
	}
	o.Log = node.NewLog(os.Stderr, level)
	if term.IsTerminal(int(os.Stderr.Fd())) {
		o.Progress = t.Err
	}
	_, err := fmt.Fprintf(t.Out, "%d messages from %d senders, in requests of %d, through %d phones in %d accounts; every answer means synced to the disk\n\n",
		o.Messages, o.Senders, o.Batch, o.Phones, o.Accounts)
	if err != nil {
		return err
	}
	result, err := demo.Run(ctx, o)
	if err != nil {
		return err
	}
	if err := result.Print(t.Out); err != nil {
		return err
	}
	return result.Err()
}
