package quota

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const (
	// monthKept is for how long into a month the counts of the one before are
	// kept: until nobody counts in it, and not longer than streams keep all of
	// its messages, so that a rebuild counts the same.
	monthKept = 3 * 24 * time.Hour
	// monthLooked is how often it is looked for counts of other months.
	monthLooked = time.Minute
)

// newMonth says which month's counts alone are to be kept: that of the time that
// has surely come, once it is some days old. Nothing is said while the clock is
// doubted, or behind what was known.
func newMonth(d service.Deps) func() string {
	return func() string {
		sure := d.Sure().UTC()
		if d.Clock.Behind() || d.Clock.Doubt() != 0 {
			return ""
		}
		begun := time.Date(sure.Year(), sure.Month(), 1, 0, 0, 0, 0, time.UTC)
		if sure.Sub(begun) < monthKept {
			return ""
		}
		return sure.Format(monthLayout)
	}
}

// endMonths ends the counts of other months while this instance leads.
func (q *Quota) endMonths(ctx context.Context, leader uint64) error {
	for {
		if month := q.month(); month != "" {
			for shard := range q.ledger.others(month) {
				if err := q.mark(ctx, shard, event.Barrier{Claim: leader, Month: month}); err != nil && ctx.Err() == nil {
					q.log.Warn("counts of other months are kept for now", zap.Error(err))
				}
			}
		}
		if clock.Sleep(ctx, monthLooked) != nil {
			return nil
		}
	}
}
