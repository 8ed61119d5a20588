// Command trunkline is the server and everything an operator does with it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"

	"github.com/trunkline-sms/trunkline/services/operator"
)

// commands is the command line.
type commands struct {
	Serve serveCommand `cmd:"" help:"Run the server: everything in this process, the engine embedded."`
	operator.Commands
	Phone      phoneCommand      `cmd:"" help:"Simulate phones: pull, \"send\" and report."`
	Demo       demoCommand       `cmd:"" help:"Run a server, senders and phones for a look around, then clean up."`
	Bench      benchCommand      `cmd:"" help:"Measure the product on this machine, beside what the engine alone could do."`
	Health     healthCommand     `cmd:"" help:"Ask a server whether it is ready."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
	Completion completionCommand `cmd:"" help:"Print a script that teaches a shell to complete these commands."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], &operator.Terminal{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// run runs one command and gives the process's exit code.
func run(ctx context.Context, args []string, t *operator.Terminal) int {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parser := newParser(t)
	kongcompletion.Register(parser) // answers the shell instead, where one asks by COMP_LINE, and ends the process
	command, err := parser.Parse(args)
	if err == nil {
		command.BindTo(ctx, (*context.Context)(nil))
		err = command.Run(t)
	}
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(t.Err, "trunkline:", line(err)) // whoever closed stderr has the exit code
	return 1
}

func newParser(t *operator.Terminal) *kong.Kong {
	return kong.Must(&commands{},
		kong.Name("trunkline"),
		kong.Description("A self-hosted SMS queue: senders burst messages in, phones pull them, send them and report back."),
		kong.Writers(t.Out, t.Err),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
}

// line gives an error as one line that says what to do.
func line(err error) string {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	var usage *kong.ParseError
	if errors.As(err, &usage) {
		text += ": see `" + path(usage.Context) + " --help`"
	}
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	return text
}

// path names the command that was meant, as far as it was recognized.
func path(c *kong.Context) string {
	if c == nil || c.Selected() == nil {
		return "trunkline"
	}
	words := strings.Fields(c.Selected().FullPath())
	for i, word := range words {
		if strings.HasPrefix(word, "<") {
			return strings.Join(words[:i], " ")
		}
	}
	return strings.Join(words, " ")
}
