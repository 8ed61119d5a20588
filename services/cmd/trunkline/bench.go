package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/term"

	"github.com/trunkline-sms/trunkline/services/lab/bench"
	"github.com/trunkline-sms/trunkline/services/operator"
)

type benchCommand struct {
	Only    []string `placeholder:"SCENARIO,…" help:"Scenarios: accept, open, pull, wake, backlog, rebuild (default all)."`
	Rate    int      `default:"1000" help:"Posts a second of the scenario open."`
	Backlog int      `default:"1000000" help:"Messages that wait in the scenario backlog."`
	Quick   bool     `help:"Some seconds in place of some minutes: shows that it works, and little of the machine."`
	Dir     string   `placeholder:"DIR" help:"Where temporary data directories are made: the disk that is measured (default the system's place)."`
	Profile string   `placeholder:"DIR" help:"Write CPU profiles of the servers there."`
	JSON    bool     `name:"json" help:"Print JSON."`

	Role string `hidden:"" help:"Be a server of a benchmark."`
}

func (benchCommand) Help() string {
	return `Runs servers on temporary directories and free ports of 127.0.0.1, and removes them. Ratios tell more than rates:
both sides of one are measured in turns.

Example:

    trunkline bench --only accept,pull`
}

func (c *benchCommand) Run(ctx context.Context, t *operator.Terminal) error {
	if c.Role != "" {
		return bench.Serve(ctx, c.Role, c.Dir, t.In, t.Out)
	}
	o := bench.DefaultOptions()
	if c.Quick {
		o = bench.QuickOptions()
		c.Backlog = min(c.Backlog, o.Backlog)
	}
	o.Only, o.Rate, o.Backlog, o.Dir, o.Profile = c.Only, c.Rate, c.Backlog, c.Dir, c.Profile
	o.Server, o.Errors = again, t.Err
	if term.IsTerminal(int(os.Stderr.Fd())) {
		o.Progress = t.Err
	}
	result, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	if c.JSON {
		if err := json.NewEncoder(t.Out).Encode(result); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	}
	return result.Print(t.Out)
}

// again is this program as a server of a benchmark.
func again(role, dir string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return exec.Command(self, "bench", "--role", role, "--dir", dir), nil //nolint:gosec,noctx // this program, which ends with its input
}
