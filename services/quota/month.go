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
	// monthKept is how long into a month the counts of the one before are kept. By
	// then no message counts in that month any more. It must not be longer than the
	// streams keep all messages of that month, so that a rebuild counts the same.
	monthKept = 3 * 24 * time.Hour
	// monthLooked is how often a leader looks for counts of other months.
	monthLooked = time.Minute
)

// newMonth makes a function that gives the only month whose counts are still needed:
// that of the time that has surely come, once it is some days old. Before, and while
// the clock is doubted or is behind a time that has been, it gives nothing.
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

// endMonths drops the counts of other months while this instance leads.
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
