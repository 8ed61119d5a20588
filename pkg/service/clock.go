package service

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/clock"
)

// skewEvery is how often the clock is compared with the engines'.
const skewEvery = 15 * time.Second

// ClockWatch compares the clock of a process with those of the streams' leaders,
// and so with those of all other parts: none may differ from an engine's by more
// than clock.Bound. It says so in the log and in metrics.
type ClockWatch struct {
	Deps
	Streams []string // none where the engine is in this process
}

// Name is "clock".
func (ClockWatch) Name() string { return "clock" }

// Run compares until ctx is done.
func (d ClockWatch) Run(ctx context.Context) error {
	skew := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "trunkline_clock_skew_seconds", Help: "How far the clock is ahead of that engine's from which it differs most.",
	})
	doubt := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trunkline_clock_doubt_seconds", Help: "By how much the machine's clock has stepped, while that is not confirmed.",
	}, func() float64 { return d.Clock.Doubt().Seconds() })
	d.Metrics.MustRegister(skew, doubt)
	defer d.Metrics.Unregister(skew)
	defer d.Metrics.Unregister(doubt)
	var apart bool
	for {
		least, most, ok := d.skews(ctx)
		if ok {
			d.Clock.SetSkew(least, most)
			skew.Set(most.Seconds())
			if differs := most.Abs() > clock.Bound; differs != apart {
				apart = differs
				if apart {
					d.Log.Warn("the clock differs from an engine's: set the one that is wrong right", zap.Duration("ahead", most), zap.Duration("allowed", clock.Bound))
				} else {
					d.Log.Info("the clock agrees with the engines' again")
				}
			}
		}
		if clock.Sleep(ctx, skewEvery) != nil {
			return nil
		}
	}
}

// skews gives the least and the largest skew to the streams' leaders.
func (d ClockWatch) skews(ctx context.Context) (least, most time.Duration, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, skewEvery)
	defer cancel()
	for _, stream := range d.Streams {
		skew, err := d.Bus.Skew(ctx, stream, d.Now)
		if err != nil {
			continue // who cannot be reached says nothing
		}
		if !ok || skew.Abs() < least.Abs() {
			least = skew
		}
		if !ok || skew.Abs() > most.Abs() {
			most = skew
		}
		ok = true
	}
	return least, most, ok
}

// Agrees says whether the clock agrees well enough with an engine's to decide
// when something is over.
func (d Deps) Agrees() bool {
	if d.Clock == nil {
		return true
	}
	least, _ := d.Clock.Skew()
	return least.Abs() <= clock.Apart
}
