// Package demo shows the product at work in one process: a server, a burst of
// messages, phones that send them, and an account of every single one.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/services/lab/phone"
	"github.com/trunkline-sms/trunkline/services/node"
)

// Options say how much happens.
type Options struct {
	Messages int // to send, over all senders
	Batch    int // messages of one request, at most 1,000
	Senders  int
	Phones   int
	Accounts int           // senders and phones are spread over them
	Fail     float64       // share of messages that phones fail to send
	Idle     time.Duration // give up when nothing has happened for so long
	Log      *zap.Logger
	Progress io.Writer // nil: no progress bar
}

// DefaultOptions are a burst that takes seconds.
func DefaultOptions() Options {
	return Options{
		Messages: 10_000, Batch: 10, Senders: 20, Phones: 50, Accounts: 4, Fail: 0.02,
		Idle: 30 * time.Second, Log: zap.NewNop(),
	}
}

func (o Options) check() error {
	switch {
	case o.Messages < 1:
		return errors.New("messages: want 1 or more")
	case o.Batch < 1 || o.Batch > 1000:
		return errors.New("batch: want 1 to 1000 messages a request")
	case o.Senders < 1:
		return errors.New("senders: want 1 or more")
	case o.Accounts < 1:
		return errors.New("accounts: want 1 or more")
	case o.Phones < o.Accounts:
		return errors.New("phones: want at least one for each account")
	case o.Fail < 0 || o.Fail > 1:
		return errors.New("fail: want a share from 0 to 1")
	}
	return nil
}

// Run runs a server on a free port and a temporary directory, bursts messages
// through it and gives the result once every message has its report. It leaves
// nothing behind.
func Run(ctx context.Context, o Options) (Result, error) {
	if err := o.check(); err != nil {
		return Result{}, err
	}
	dir, err := os.MkdirTemp("", "trunkline-demo-")
	if err != nil {
		return Result{}, fmt.Errorf("make a data directory: %w", err)
	}
	defer os.RemoveAll(dir)

	serverCtx, stopServer := context.WithCancel(ctx)
	defer stopServer()
	var (
		server  errgroup.Group
		started = make(chan node.Started, 1)
		failed  = make(chan struct{})
	)
	server.Go(func() error {
		defer close(failed)
		cfg := node.DefaultConfig()
		cfg.Data, cfg.HTTP = dir, "127.0.0.1:0"
		return node.Run(serverCtx, cfg, node.Deps{
			Log: o.Log, Version: "0.0.0-demo", InProcessOnly: true,
			Ready: func(s node.Started) { started <- s },
		})
	})
	var result Result
	select {
	case s := <-started:
		result, err = burst(ctx, o, s)
	case <-failed:
	}
	stopServer()
	return result, errors.Join(server.Wait(), err)
}

// burst sends all messages and waits for their reports.
func burst(ctx context.Context, o Options, server node.Started) (Result, error) {
	tokens, err := makeAccounts(ctx, server, o.Accounts)
	if err != nil {
		return Result{}, err
	}
	t := newTally(o.Messages, progress(o))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	phones, err := startPhones(ctx, o, server.URL, tokens, t)
	if err != nil {
		return Result{}, err
	}
	sendErr := send(ctx, o, server.URL, tokens, t)
	t.await(ctx, o.Idle)
	stop()
	if err := phones.Wait(); err != nil {
		return Result{}, err
	}
	return t.result(), sendErr
}

// makeAccounts makes accounts without limit or rate and gives their tokens.
func makeAccounts(ctx context.Context, server node.Started, n int) ([]secret.String, error) {
	conn, err := server.Connect("demo")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	b, err := bus.New(conn)
	if err != nil {
		return nil, err
	}
	book, err := accounts.Open(ctx, b, time.Now)
	if err != nil {
		return nil, err
	}
	tokens := make([]secret.String, n)
	for i := range tokens {
		plan := accounts.DefaultPlan()
		plan.Rate = 0
		created, err := book.Create(ctx, accounts.Spec{Name: fmt.Sprintf("demo-%d", i+1), Plan: plan})
		if err != nil {
			return nil, err
		}
		tokens[i] = created.Token
		if _, err := book.AwaitSeen(ctx, created.Revision); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// startPhones starts a fleet for each account.
func startPhones(ctx context.Context, o Options, url string, tokens []secret.String, t *tally) (*errgroup.Group, error) {
	var g errgroup.Group
	for i, token := range tokens {
		count := o.Phones / len(tokens)
		if i < o.Phones%len(tokens) {
			count++
		}
		fleet, err := phone.NewFleet(phone.Options{
			URL: url, Token: token, Device: "phone", Limit: 100, Wait: 20 * time.Second, Fail: o.Fail,
			Hooks: phone.Hooks{
				Pulled:   func(_ string, hashes []string) { t.pulled(hashes) },
				Reported: func(_ string, outcomes []phone.Outcome, _ int) { t.reported(outcomes) },
			},
		}, count, 0, rand.Uint64()) //nolint:gosec // nothing here needs to be unguessable
		if err != nil {
			return nil, err
		}
		g.Go(func() error { return fleet.Run(ctx) })
	}
	return &g, nil
}

// send bursts the messages from all senders at once.
func send(ctx context.Context, o Options, url string, tokens []secret.String, t *tally) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: o.Senders}}
	defer client.CloseIdleConnections()
	var (
		g    errgroup.Group
		mu   sync.Mutex
		left = o.Messages
	)
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		n := min(o.Batch, left)
		left -= n
		return n
	}
	for i := range o.Senders {
		s := sender{client: client, url: url + "/api/" + tokens[i%len(tokens)].Reveal() + "/queue", tally: t}
		g.Go(func() error {
			for n := take(); n > 0; n = take() {
				if err := s.post(ctx, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func progress(o Options) *progressbar.ProgressBar {
	w := o.Progress
	if w == nil {
		return progressbar.DefaultSilent(int64(o.Messages))
	}
	return progressbar.NewOptions(o.Messages,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription("delivered"),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("SMS"),
		progressbar.OptionThrottle(50*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}
