package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// wakeWait is how many seconds the phone waits for work.
	wakeWait = 20
	// A phone that has asked waits by the time the message comes.
	wakePause  = 10 * time.Millisecond
	wakeSpread = 10 * time.Millisecond
)

// wake measures how long a message takes from its sender to a phone that waits
// for one.
func (r *run) wake(ctx context.Context) error {
	product, err := r.product(ctx)
	if err != nil {
		return err
	}
	r.step("wake")
	// The probe's account: whatever the scenarios before left, it has none.
	if err := r.awaitFolds(ctx, product); err != nil {
		return err
	}
	as := product.caller(probeAccount)
	post, err := as.post(1)
	if err != nil {
		return err
	}
	sender, err := dial(ctx, product.hello.Address)
	if err != nil {
		return err
	}
	defer sender.close()
	waiting, err := dial(ctx, product.hello.Address)
	if err != nil {
		return err
	}
	defer waiting.close()
	p := &phone{client: waiting, as: as, device: probeDevice, pull: as.pull(probeDevice, 20, wakeWait)}

	posts, wakes := newLatency(), newLatency()
	err = r.profiled(ctx, Wake, []*process{product}, func() error {
		for range r.Samples {
			if err := p.wakeOnce(ctx, func() error { return sendOne(ctx, sender, post, posts) }, wakes); err != nil {
				return err
			}
		}
		return nil
	})
	r.result.Wake = &WakeResult{Post: posts.percentiles(), Wake: wakes.percentiles()}
	return err
}

func sendOne(ctx context.Context, sender *client, post []byte, posts *latency) error {
	begun := time.Now()
	_, err := sender.do(ctx, post)
	posts.record(time.Since(begun))
	return err
}

// wakeOnce waits for a message that send posts, and reports it.
func (p *phone) wakeOnce(ctx context.Context, send func() error, wakes *latency) error {
	type arrival struct {
		page []byte
		at   time.Time
		err  error
	}
	arrived := make(chan arrival, 1)
	go func() {
		page, err := p.do(ctx, p.pull)
		arrived <- arrival{page, time.Now(), err}
	}()
	time.Sleep(wakePause + rand.N(wakeSpread)) //nolint:gosec // nothing here needs to be unguessable
	posted := time.Now()
	if err := send(); err != nil {
		p.close()
		<-arrived
		return fmt.Errorf("post: %w", err)
	}
	came := <-arrived
	if came.err != nil {
		return fmt.Errorf("pull: %w", came.err)
	}
	report, n, err := p.as.report(p.device, came.page)
	switch {
	case err != nil:
		return err
	case n == 0:
		return errors.New("the phone was not woken")
	}
	wakes.record(came.at.Sub(posted))
	_, err = p.do(ctx, report)
	return err
}
