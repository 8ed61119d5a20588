package bench

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/services/node"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// product is the whole product, with its default settings.
type product struct {
	bus      *bus.Bus
	store    *store
	greeting hello
}

func runProduct(ctx context.Context, dir string, obey func(context.Context, server) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cfg := node.DefaultConfig()
	cfg.Data, cfg.HTTP = dir, "127.0.0.1:0"
	var (
		g       errgroup.Group
		started = make(chan node.Started, 1)
		ended   = make(chan struct{})
	)
	g.Go(func() error {
		defer close(ended)
		return node.Run(ctx, cfg, node.Deps{
			Log: node.NewLog(os.Stderr, zapcore.WarnLevel), Version: "0.0.0-bench",
			Ready: func(s node.Started) { started <- s },
		})
	})
	var err error
	select {
	case s := <-started:
		err = obeyAsProduct(ctx, s, obey)
	case <-ended:
	}
	stop()
	return errors.Join(g.Wait(), err)
}

func obeyAsProduct(ctx context.Context, s node.Started, obey func(context.Context, server) error) error {
	conn, err := s.Connect("bench")
	if err != nil {
		return err
	}
	defer conn.Close()
	p := &product{}
	if p.bus, err = bus.New(conn); err != nil {
		return err
	}
	if err := p.makeAccounts(ctx, s.URL); err != nil {
		return err
	}
	p.store = newStore(p.bus, p.greeting.Accounts)
	return p.store.while(ctx, func(ctx context.Context) error { return obey(ctx, p) })
}

// makeAccounts makes accounts without limit or rate.
func (p *product) makeAccounts(ctx context.Context, at string) error {
	where, err := url.Parse(at)
	if err != nil {
		return err
	}
	p.greeting.Address = where.Host
	book, err := accounts.Open(ctx, p.bus, time.Now)
	if err != nil {
		return err
	}
	for i := range accountCount {
		plan := accounts.DefaultPlan()
		plan.Rate = 0
		made, err := book.Create(ctx, accounts.Spec{Name: accountName(i), Plan: plan})
		if err != nil {
			return err
		}
		p.greeting.Tokens = append(p.greeting.Tokens, made.Token.Reveal())
		p.greeting.Accounts = append(p.greeting.Accounts, made.Account.ID)
		if _, err := book.AwaitSeen(ctx, made.Revision); err != nil {
			return err
		}
	}
	return nil
}

func accountName(i int) string { return fmt.Sprintf("bench-%d", i) }

func (p *product) hello() hello { return p.greeting }

func (p *product) do(ctx context.Context, q order) (answer, error) {
	switch q.Do {
	case doFill:
		return answer{}, p.store.fill(ctx, q.Account, q.Count)
	case doRebuild:
		return p.rebuild(ctx, q.Name)
	}
	return unknown(q)
}

// rebuildTimeout bounds work that reads the streams from their beginning.
const rebuildTimeout = time.Hour

// rebuild rebuilds a projection, as the command does.
func (p *product) rebuild(ctx context.Context, name string) (answer, error) {
	events, err := p.events(ctx)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, rebuildTimeout) // a call without one has seconds
	defer cancel()
	begun := time.Now()
	if _, err := bus.Call[request.Rebuilt](ctx, p.bus, request.ProjectionRebuild(name), request.Rebuild{}); err != nil {
		return answer{}, err
	}
	return answer{Took: time.Since(begun), Events: events}, nil
}

// events counts what each stream holds.
func (p *product) events(ctx context.Context) (map[string]uint64, error) {
	events := map[string]uint64{}
	for _, name := range []string{streams.EnqueueStream(0), streams.StatusStream(0)} {
		stream, err := p.bus.JS.Stream(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("look up stream %s: %w", name, err)
		}
		events[name] = stream.CachedInfo().State.Msgs
	}
	return events, nil
}
