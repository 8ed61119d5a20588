// Package phone simulates the phones of a fleet: over HTTP, in the queue
// dialect, they pull messages, "send" them and report what became of them.
package phone

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/secret"
)

// Options say how a phone behaves.
type Options struct {
	URL    string        // of the server, as in http://127.0.0.1:8080
	Token  secret.String // of the account
	Device string        // name the phone gives itself, at most 15 characters; empty: none
	Client *http.Client  // nil: one of its own
	Rand   *rand.Rand    // nil: seeded by chance

	Limit int           // most messages of one pull, 1 to 200
	Wait  time.Duration // how long a pull waits for work
	Batch int           // most outcomes of one report; 0: as many as a pull
	Delay Delay         // how long sending one message takes
	Fail  float64       // share of messages that fail, 0 to 1
	Dies  bool          // the phone is never heard of again after its first messages

	Hooks Hooks
}

// MaxDevice is the most characters of a phone's name.
const MaxDevice = 15

// Hooks let someone watch phones. Those of a fleet are called by many phones at
// a time.
type Hooks struct {
	Pulled   func(device string, hashes []string)                 // a page arrived
	Reported func(device string, outcomes []Outcome, updated int) // a report was answered with how many it updated
	Failed   func(device string, err error, pause time.Duration)  // a call went wrong; it is made again after the pause
	Dropped  func(device string, outcomes []Outcome, err error)   // a report will never be taken, or not any more
}

// Outcome is what became of one message.
type Outcome struct {
	Hash   string `json:"hash"`
	Status int    `json:"status"` // Success or Failure
}

// Statuses of the queue dialect.
const (
	Success = 2
	Failure = 3
)

// ErrUnauthorized says that the server does not know the token.
var ErrUnauthorized = errors.New("the server does not know this token: `trunkline account token NAME` makes a new one")

const (
	// reportAfter is how long an outcome waits for others before it is reported.
	reportAfter = 5 * time.Second
	// idle is the pause after a page that came at once and was empty.
	idle = time.Second
	// stopGrace is how long a phone that was told to stop tries to report.
	stopGrace = 5 * time.Second
)

// Phone is one simulated phone.
type Phone struct {
	o      Options
	api    api
	counts *counts
	back   backoff
}

// New makes a phone. It checks the options.
func New(o Options) (*Phone, error) {
	base, err := url.Parse(o.URL)
	switch {
	case err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		return nil, errors.New("url: want the server's address, as in http://127.0.0.1:8080")
	case o.Token == "":
		return nil, errors.New("token: want the account's API token")
	case len(o.Device) > MaxDevice:
		return nil, fmt.Errorf("device %q: want at most %d characters", o.Device, MaxDevice)
	case o.Limit < 1 || o.Limit > 200:
		return nil, errors.New("limit: want 1 to 200 messages a pull")
	case o.Wait < 0:
		return nil, errors.New("wait: want 0 or more")
	case o.Fail < 0 || o.Fail > 1:
		return nil, errors.New("fail: want a share from 0 to 1")
	}
	if o.Batch <= 0 {
		o.Batch = o.Limit
	}
	if o.Client == nil {
		o.Client = newClient(1)
	}
	if o.Rand == nil {
		o.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) //nolint:gosec // nothing here needs to be unguessable
	}
	return &Phone{
		o:      o,
		api:    api{client: o.Client, base: strings.TrimSuffix(o.URL, "/"), token: o.Token},
		counts: new(counts),
		back:   backoff{rand: o.Rand},
	}, nil
}

// Run pulls, sends and reports until ctx is done. Then it sends what it has in
// hand without delay, reports it, and returns nil. The error is ErrUnauthorized
// when the server refuses the token.
func (p *Phone) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		asked := time.Now()
		hashes, err := p.api.pull(ctx, p.o.Device, p.o.Limit, p.o.Wait)
		switch {
		case ctx.Err() != nil && err != nil:
			return nil
		case errors.Is(err, ErrUnauthorized):
			return ErrUnauthorized
		case err != nil:
			p.pause(ctx, err)
			continue
		}
		p.back.reset()
		if len(hashes) == 0 {
			if time.Since(asked) < p.o.Wait/2 || p.o.Wait == 0 {
				_ = clock.Sleep(ctx, p.back.jitter(idle))
			}
			continue
		}
		p.counts.pulled.Add(int64(len(hashes)))
		if hook := p.o.Hooks.Pulled; hook != nil {
			hook(p.o.Device, hashes)
		}
		if p.o.Dies {
			return nil
		}
		if err := p.send(ctx, hashes); err != nil {
			return err
		}
	}
	return nil
}

// send works through a page and reports it, in several reports if it is long
// or slow.
func (p *Phone) send(ctx context.Context, hashes []string) error {
	var (
		done  []Outcome
		first time.Time
	)
	for i, hash := range hashes {
		_ = clock.Sleep(ctx, p.o.Delay.draw(p.o.Rand))
		outcome := Outcome{Hash: hash, Status: Success}
		if p.o.Rand.Float64() < p.o.Fail {
			outcome.Status = Failure
		}
		p.counts.add(outcome)
		if len(done) == 0 {
			first = time.Now()
		}
		done = append(done, outcome)
		last := i == len(hashes)-1
		if last || len(done) >= p.o.Batch || time.Since(first) >= reportAfter {
			if err := p.report(ctx, done); err != nil {
				return err
			}
			done = nil
		}
	}
	return nil
}

// report reports outcomes until the server has taken them. What was sent was
// sent: a phone that is told to stop still tries for a while.
func (p *Phone) report(stop context.Context, outcomes []Outcome) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(stop))
	defer cancel()
	defer context.AfterFunc(stop, func() { time.AfterFunc(stopGrace, cancel) })()
	for {
		updated, err := p.api.report(ctx, p.o.Device, outcomes)
		if err == nil {
			p.back.reset()
			p.counts.reported.Add(int64(len(outcomes)))
			if hook := p.o.Hooks.Reported; hook != nil {
				hook(p.o.Device, outcomes, updated)
			}
			return nil
		}
		var refused *refusal
		hopeless := errors.Is(err, ErrUnauthorized) || errors.As(err, &refused) && refused.final()
		if hopeless || ctx.Err() != nil {
			p.counts.dropped.Add(int64(len(outcomes)))
			p.counts.errors.Add(1)
			if hook := p.o.Hooks.Dropped; hook != nil {
				hook(p.o.Device, outcomes, err)
			}
			if errors.Is(err, ErrUnauthorized) {
				return ErrUnauthorized
			}
			return nil
		}
		p.pause(ctx, err)
	}
}

// pause waits after an error, as long as the server asked for.
func (p *Phone) pause(ctx context.Context, err error) {
	p.counts.errors.Add(1)
	pause := p.back.next(retryAfter(err))
	if hook := p.o.Hooks.Failed; hook != nil {
		hook(p.o.Device, err, pause)
	}
	_ = clock.Sleep(ctx, pause)
}
