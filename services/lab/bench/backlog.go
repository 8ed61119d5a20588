package bench

import (
	"context"
	"fmt"
)

const (
	few         = 1000 // messages that wait, for comparison
	backlogPage = 200
	backlogWarm = 3 // pulls that are not counted
)

// backlog measures pulls from two products, in turns: in one few messages wait,
// in the other many.
func (r *run) backlog(ctx context.Context) error {
	type stock struct {
		waiting int
		server  *process
		phone   *phone
		pulls   *latency
	}
	stocks := []*stock{{waiting: few}, {waiting: r.Backlog}}
	var servers []*process
	for _, s := range stocks {
		var err error
		if s.server, err = r.start(ctx, roleProduct, fmt.Sprintf("%s-%d", roleProduct, s.waiting)); err != nil {
			return err
		}
		r.step("backlog: fill %d", s.waiting)
		if err := r.fill(ctx, s.server, s.waiting); err != nil {
			return err
		}
		servers = append(servers, s.server)
	}
	// Only now: a server closes a connection that says nothing for long.
	for _, s := range stocks {
		var err error
		if s.phone, err = newPhone(ctx, s.server, "phone", backlogPage); err != nil {
			return err
		}
		defer s.phone.close()
	}
	pullAll := func() error {
		for _, s := range stocks {
			n, err := s.phone.work(ctx, s.pulls, nil)
			switch {
			case err != nil:
				return err
			case n != backlogPage:
				return fmt.Errorf("got a page of %d with %d waiting, want %d", n, s.waiting, backlogPage)
			}
			if err := r.fill(ctx, s.server, n); err != nil { // as many as before
				return err
			}
		}
		return nil
	}
	for range backlogWarm {
		if err := pullAll(); err != nil {
			return err
		}
	}
	for _, s := range stocks {
		s.pulls = newLatency()
	}
	err := r.profiled(ctx, Backlog, servers, func() error {
		for i := range r.Samples {
			if i%10 == 0 {
				r.step("backlog: pull")
			}
			if err := pullAll(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	result := BacklogResult{
		Page: backlogPage, Few: few, Many: r.Backlog,
		PullFew: stocks[0].pulls.percentiles(), PullAll: stocks[1].pulls.percentiles(),
	}
	result.Ratio = float64(result.PullAll.P50) / float64(max(result.PullFew.P50, 1))
	r.result.Backlog = &result
	for _, s := range servers {
		if err := r.finish(s); err != nil {
			return err
		}
	}
	return nil
}
