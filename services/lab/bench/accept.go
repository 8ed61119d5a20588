package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// acceptCases are the senders and the messages of their posts.
var acceptCases = []struct{ senders, batch int }{{1, 1}, {8, 1}, {32, 1}, {256, 1}, {8, 20}, {16, 200}}

// largestCommit is the most messages that group commit stores together.
const largestCommit = 1000

// accept measures posts in a closed loop, and in turns with them the ceilings.
func (r *run) accept(ctx context.Context) error {
	product, err := r.product(ctx)
	if err != nil {
		return err
	}
	bare, err := r.start(ctx, roleBare, roleBare)
	if err != nil {
		return err
	}
	engine, err := r.start(ctx, roleEngine, roleEngine)
	if err != nil {
		return err
	}
	for _, c := range acceptCases {
		name := fmt.Sprintf("%s-%dx%d", Accept, c.senders, c.batch)
		err := r.profiled(ctx, name, []*process{product, bare, engine}, func() error {
			result, err := r.acceptCase(ctx, product, bare, engine, c.senders, c.batch)
			r.result.Accept = append(r.result.Accept, result)
			return err
		})
		if err != nil {
			return fmt.Errorf("%d senders × %d: %w", c.senders, c.batch, err)
		}
	}
	if err := r.finish(bare); err != nil {
		return err
	}
	return r.finish(engine)
}

func (r *run) acceptCase(ctx context.Context, product, bare, engine *process, senders, batch int) (AcceptResult, error) {
	result := AcceptResult{Senders: senders, Batch: batch}
	toProduct, err := newPress(ctx, product, senders, batch)
	if err != nil {
		return result, err
	}
	defer toProduct.close()
	toBare, err := newPress(ctx, bare, senders, batch)
	if err != nil {
		return result, err
	}
	defer toBare.close()

	var ofProduct, ofBare, ofEngine []sample
	targets := []func(time.Duration) error{
		func(d time.Duration) error {
			s, err := toProduct.measure(ctx, d, func() error { return r.awaitFolds(ctx, product) })
			ofProduct = append(ofProduct, s)
			return err
		},
		func(d time.Duration) error {
			s, err := toBare.measure(ctx, d, func() error { return nil })
			ofBare = append(ofBare, s)
			return err
		},
		func(d time.Duration) error {
			s, err := publish(ctx, engine, min(senders*batch, largestCommit), d)
			ofEngine = append(ofEngine, s)
			return err
		},
	}
	// A first round, not counted, makes connections, caches and files warm.
	for _, target := range targets {
		if err := target(r.Slice / 5); err != nil {
			return result, err
		}
	}
	ofProduct, ofBare, ofEngine = nil, nil, nil
	for round := range r.Rounds {
		r.step("accept %d × %d", senders, batch)
		for i := range targets {
			if err := targets[(round+i)%len(targets)](r.Slice); err != nil {
				return result, err
			}
		}
	}
	result.Product, result.Bare, result.Engine = side(ofProduct), side(ofBare), side(ofEngine)
	result.OfBare, result.OfEngine = ratio(ofProduct, ofBare), ratio(ofProduct, ofEngine)
	var folded []float64
	for _, s := range ofProduct {
		result.Behind = max(result.Behind, Micros(s.behind.Microseconds()))
		folded = append(folded, perSecond(s.messages, s.took+s.behind))
	}
	result.Folded = median(folded)
	return result, nil
}

// press is senders that post to a server in a closed loop.
type press struct {
	server  *process
	clients []*client
	posts   [][]byte // of each sender
	batch   int
}

func newPress(ctx context.Context, server *process, senders, batch int) (*press, error) {
	clients, err := dialAll(ctx, server.hello.Address, senders)
	if err != nil {
		return nil, err
	}
	p := &press{server: server, clients: clients, batch: batch}
	for i := range senders {
		post, err := server.caller(firstSender + i%(accountCount-firstSender)).post(batch)
		if err != nil {
			return nil, err
		}
		p.posts = append(p.posts, post)
	}
	return p, nil
}

func (p *press) close() { closeAll(p.clients) }

// measure posts for some time. What the server has used includes what it does
// until settled.
func (p *press) measure(ctx context.Context, d time.Duration, settled func() error) (sample, error) {
	before, err := p.server.use(ctx)
	if err != nil {
		return sample{}, err
	}
	s, err := p.post(ctx, d)
	if err != nil {
		return sample{}, err
	}
	answered := time.Now()
	if err := settled(); err != nil {
		return sample{}, err
	}
	s.behind = time.Since(answered)
	after, err := p.server.use(ctx)
	s.used = after.since(before)
	return s, err
}

// post posts until d is over, and finishes the posts under way.
func (p *press) post(ctx context.Context, d time.Duration) (sample, error) {
	s := sample{latency: newLatency()}
	var posts atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	begun := time.Now()
	for i, c := range p.clients {
		g.Go(func() error {
			for now := time.Now(); now.Sub(begun) < d; {
				if _, err := c.do(ctx, p.posts[i]); err != nil {
					return err
				}
				done := time.Now()
				s.latency.record(done.Sub(now))
				posts.Add(1)
				now = done
			}
			return nil
		})
	}
	err := g.Wait()
	s.took = time.Since(begun)
	s.messages = int(posts.Load()) * p.batch
	return s, err
}

// publish lets the engine store commits of n messages for some time.
func publish(ctx context.Context, engine *process, n int, d time.Duration) (sample, error) {
	before, err := engine.use(ctx)
	if err != nil {
		return sample{}, err
	}
	done, err := engine.ask(ctx, order{Do: doPublish, Count: n, For: d})
	if err != nil {
		return sample{}, err
	}
	after, err := engine.use(ctx)
	if err != nil {
		return sample{}, err
	}
	s := sample{messages: done.Messages, took: done.Took, used: after.since(before)}
	s.latency, err = decodeLatency(done.Latency)
	return s, err
}
