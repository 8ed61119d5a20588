package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// pullCases are the phones of one account and the messages of their pages.
var pullCases = []struct{ phones, page int }{{1, 100}, {8, 20}, {1, 200}}

// pullStock is how many messages a case has for each second: more than phones
// have ever taken.
const pullStock = 40_000

// pull measures phones that pull and report without a pause.
func (r *run) pull(ctx context.Context) error {
	product, err := r.product(ctx)
	if err != nil {
		return err
	}
	for _, c := range pullCases {
		r.step("pull %d × %d: fill", c.phones, c.page)
		stock := max(int(r.Span.Seconds()*pullStock), 10*c.phones*c.page)
		if err := r.fill(ctx, product, stock); err != nil {
			return err
		}
		r.step("pull %d × %d", c.phones, c.page)
		err := r.profiled(ctx, fmt.Sprintf("%s-%dx%d", Pull, c.phones, c.page), []*process{product}, func() error {
			result, err := r.pullCase(ctx, product, c.phones, c.page)
			r.result.Pull = append(r.result.Pull, result)
			return err
		})
		if err != nil {
			return fmt.Errorf("%d phones × %d: %w", c.phones, c.page, err)
		}
	}
	return nil
}

// fill gives the phones messages, and waits until they are folded.
func (r *run) fill(ctx context.Context, product *process, count int) error {
	if _, err := product.ask(ctx, order{Do: doFill, Account: workAccount, Count: count}); err != nil {
		return err
	}
	return r.awaitFolds(ctx, product)
}

func (r *run) pullCase(ctx context.Context, product *process, phones, page int) (PullResult, error) {
	var all []*phone
	for i := range phones {
		p, err := newPhone(ctx, product, fmt.Sprintf("phone-%d", i), page)
		if err != nil {
			return PullResult{}, err
		}
		defer p.close()
		if _, err := p.work(ctx, nil, nil); err != nil { // the first pull makes the lane's consumer
			return PullResult{}, err
		}
		all = append(all, p)
	}
	before, err := product.use(ctx)
	if err != nil {
		return PullResult{}, err
	}
	pulls, reports := newLatency(), newLatency()
	var messages atomic.Int64
	g, inner := errgroup.WithContext(ctx)
	begun := time.Now()
	for _, p := range all {
		g.Go(func() error {
			for time.Since(begun) < r.Span {
				n, err := p.work(inner, pulls, reports)
				if err != nil || n == 0 {
					return err
				}
				messages.Add(int64(n))
			}
			return nil
		})
	}
	err = g.Wait()
	took := time.Since(begun)
	if err != nil {
		return PullResult{}, err
	}
	after, err := product.use(ctx)
	n := int(messages.Load())
	return PullResult{
		Phones: phones, Page: page, Rate: perSecond(n, took),
		Pull: pulls.percentiles(), Report: reports.percentiles(), Cost: costOf(after.since(before), n),
	}, err
}

// phone pulls and reports.
type phone struct {
	*client
	as     caller
	device string
	pull   []byte
}

func newPhone(ctx context.Context, product *process, device string, page int) (*phone, error) {
	c, err := dial(ctx, product.hello.Address)
	if err != nil {
		return nil, err
	}
	as := product.caller(workAccount)
	return &phone{client: c, as: as, device: device, pull: as.pull(device, page, 0)}, nil
}

// work pulls a page and reports it, and gives the number of its messages. The
// latencies may be nil.
func (p *phone) work(ctx context.Context, pulls, reports *latency) (int, error) {
	begun := time.Now()
	page, err := p.do(ctx, p.pull)
	if err != nil {
		return 0, fmt.Errorf("pull: %w", err)
	}
	took := time.Since(begun)
	report, n, err := p.as.report(p.device, page)
	if err != nil || n == 0 {
		return 0, err
	}
	if pulls != nil {
		pulls.record(took)
	}
	begun = time.Now()
	if _, err := p.do(ctx, report); err != nil {
		return 0, fmt.Errorf("report: %w", err)
	}
	if reports != nil {
		reports.record(time.Since(begun))
	}
	return n, nil
}
