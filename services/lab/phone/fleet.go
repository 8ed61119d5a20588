package phone

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Fleet is many phones that behave alike.
type Fleet struct {
	phones []*Phone
	counts *counts
}

// NewFleet makes count phones. Each has a name of its own, made from the
// options' with a number behind it, and chance of its own, drawn from seed. The
// share die of them is never heard of again after the first messages.
func NewFleet(o Options, count int, die float64, seed uint64) (*Fleet, error) {
	if count < 1 {
		return nil, fmt.Errorf("count: want 1 phone or more")
	}
	if die < 0 || die > 1 {
		return nil, fmt.Errorf("die: want a share from 0 to 1")
	}
	if o.Client == nil {
		o.Client = newClient(count)
	}
	f := &Fleet{counts: new(counts)}
	name := o.Device
	for i := range count {
		if name != "" && count > 1 {
			o.Device = fmt.Sprintf("%s-%d", name, i+1)
		}
		o.Rand = rand.New(rand.NewPCG(seed, uint64(i))) //nolint:gosec // repeats itself on purpose
		o.Dies = float64(i) < die*float64(count)
		p, err := New(o)
		if err != nil {
			return nil, err
		}
		p.counts = f.counts
		f.phones = append(f.phones, p)
	}
	return f, nil
}

// Run runs the phones until ctx is done, and waits for them to report what they
// have in hand. When the server refuses the token all stop.
func (f *Fleet) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range f.phones {
		g.Go(func() error { return p.Run(ctx) })
	}
	return g.Wait()
}

// Stats counts messages since the start.
type Stats struct {
	Pulled   int64 // handed out to the phones
	Sent     int64 // "sent" with success
	Failed   int64 // with failure
	Reported int64 // of Sent and Failed, taken by the server
	Dropped  int64 // of Sent and Failed, which the server will not take
	Errors   int64 // calls that went wrong
}

// InHand is how many messages the phones have that are not reported.
func (s Stats) InHand() int64 { return s.Pulled - s.Reported - s.Dropped }

// Stats counts what the fleet has done so far.
func (f *Fleet) Stats() Stats { return f.counts.stats() }

type counts struct{ pulled, sent, failed, reported, dropped, errors atomic.Int64 }

func (c *counts) add(o Outcome) {
	if o.Status == Success {
		c.sent.Add(1)
	} else {
		c.failed.Add(1)
	}
}

func (c *counts) stats() Stats {
	return Stats{
		Pulled: c.pulled.Load(), Sent: c.sent.Load(), Failed: c.failed.Load(),
		Reported: c.reported.Load(), Dropped: c.dropped.Load(), Errors: c.errors.Load(),
	}
}
