package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// openSenders is how many posts can be under way at a fixed rate. Those that
// find no sender free begin late, and the time counts.
const openSenders = 256

// open posts at a fixed rate, one message each. A post's time begins when it
// was due, not when a sender came to it, so that a server that stalls is not
// spared the posts that would have come meanwhile.
func (r *run) open(ctx context.Context) error {
	product, err := r.product(ctx)
	if err != nil {
		return err
	}
	p, err := newPress(ctx, product, openSenders, 1)
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := p.post(ctx, r.Slice/5); err != nil { // warm
		return err
	}
	if err := r.awaitFolds(ctx, product); err != nil {
		return err
	}
	r.step("posts at %d/s", r.Rate)
	return r.profiled(ctx, Open, []*process{product}, func() error {
		before, err := product.use(ctx)
		if err != nil {
			return err
		}
		late := newLatency()
		s, err := p.postAt(ctx, r.Rate, r.Span, late)
		if err != nil {
			return fmt.Errorf("at %d posts a second: %w", r.Rate, err)
		}
		if err := r.awaitFolds(ctx, product); err != nil {
			return err
		}
		after, err := product.use(ctx)
		r.result.Open = &OpenResult{
			Wanted: r.Rate, Rate: s.rate(), Latency: s.latency.percentiles(), Late: late.percentiles(),
			Cost: costOf(after.since(before), s.messages),
		}
		return err
	})
}

// postAt posts at a fixed rate for some time.
func (p *press) postAt(ctx context.Context, rate int, d time.Duration, late *latency) (sample, error) {
	s := sample{latency: newLatency(), messages: max(1, int(d.Seconds()*float64(rate)))}
	interval := time.Second / time.Duration(rate)
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	begun := time.Now()
	for i, c := range p.clients {
		g.Go(func() error {
			for {
				n := next.Add(1) - 1
				if n >= int64(s.messages) {
					return nil
				}
				due := begun.Add(time.Duration(n) * interval)
				time.Sleep(time.Until(due))
				late.record(time.Since(due))
				if _, err := c.do(ctx, p.posts[i]); err != nil {
					return err
				}
				s.latency.record(time.Since(due))
			}
		})
	}
	err := g.Wait()
	s.took = time.Since(begun)
	return s, err
}
