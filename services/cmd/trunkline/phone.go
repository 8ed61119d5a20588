package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/services/lab/phone"
	"github.com/trunkline-sms/trunkline/services/operator"
)

type phoneCommand struct {
	URL    string        `name:"url" default:"http://127.0.0.1:8080" env:"TRUNKLINE_URL" help:"Address of the server."`
	Token  string        `required:"" env:"TRUNKLINE_TOKEN" help:"API token of the account."`
	Count  int           `default:"1" help:"How many phones."`
	Device string        `default:"phone" placeholder:"NAME" help:"Name the phones go by, with a number behind it (default phone); empty for none."`
	Limit  int           `default:"20" help:"Most messages of one pull, 1 to 200."`
	Wait   time.Duration `default:"20s" help:"How long a pull waits for work."`
	Delay  phone.Delay   `default:"0s..2s" help:"How long sending one message takes: 500ms, or a range as in 0s..2s."`
	Fail   float64       `default:"0" help:"Share of messages that fail, as in 0.02."`
	Die    float64       `default:"0" help:"Share of phones that vanish with their first messages in hand."`
	Seed   uint64        `help:"Makes chance repeat itself; 0 for another each time."`
}

func (phoneCommand) Help() string {
	return `Stop them with Ctrl-C: they report what they have in hand first.

Example:

    trunkline phone --count 10 --token TOKEN --fail 0.02`
}

func (c *phoneCommand) Run(ctx context.Context, t *operator.Terminal) error {
	if c.Seed == 0 {
		c.Seed = rand.Uint64() //nolint:gosec // nothing here needs to be unguessable
	}
	troubles := &troubles{out: t.Err}
	fleet, err := phone.NewFleet(phone.Options{
		URL: c.URL, Token: secret.String(c.Token), Device: c.Device,
		Limit: c.Limit, Wait: c.Wait, Delay: c.Delay, Fail: c.Fail,
		Hooks: phone.Hooks{
			Failed:  func(device string, err error, _ time.Duration) { troubles.tell(device, err) },
			Dropped: func(device string, _ []phone.Outcome, err error) { troubles.tell(device, err) },
		},
	}, c.Count, c.Die, c.Seed)
	if err != nil {
		return err
	}
	shown, stop := context.WithCancel(context.Background())
	var show sync.WaitGroup
	show.Go(func() { showProgress(shown, t.Out, fleet) })
	err = fleet.Run(ctx)
	stop()
	show.Wait()
	return err
}

// troubles tells what goes wrong, at most once a second: a fleet without a
// server has little else to say.
type troubles struct {
	out  io.Writer
	mu   sync.Mutex
	next time.Time
}

func (w *troubles) tell(device string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); now.After(w.next) {
		w.next = now.Add(time.Second)
		_, _ = fmt.Fprintf(w.out, "\n%s: %v\n", device, err)
	}
}

// showProgress keeps one line up to date on a terminal, and prints one now and
// then elsewhere.
func showProgress(ctx context.Context, out io.Writer, fleet *phone.Fleet) {
	before, after, every := "\r", "", time.Second
	if file, ok := out.(*os.File); !ok || !term.IsTerminal(int(file.Fd())) {
		before, after, every = "", "\n", 10*time.Second
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var last phone.Stats
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			_, _ = fmt.Fprintf(out, "%sstopped: %s%s\n", before, sums(fleet.Stats()), padding)
			return
		}
		now := fleet.Stats()
		rate := float64(now.Sent+now.Failed-last.Sent-last.Failed) / every.Seconds()
		_, _ = fmt.Fprintf(out, "%s%.1f a second: %s%s%s", before, rate, sums(now), padding, after)
		last = now
	}
}

// padding covers what is left of a longer line.
const padding = "        "

func sums(s phone.Stats) string {
	return fmt.Sprintf("sent %d, failed %d, in hand %d, errors %d", s.Sent, s.Failed, s.InHand(), s.Errors)
}
