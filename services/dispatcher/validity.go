package dispatcher

import (
	"context"
	"fmt"
	"time"

	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// validity ends messages that were not sent while they were valid.
type validity struct {
	*shard
	decisions *decider
}

// end ends the messages whose validity is over, whichever phone has them, and
// says when the next validity is over.
func (s *validity) end(ctx context.Context) (time.Time, error) {
	for {
		var over []state.Timed
		next := s.sure().Add(lookAtLeast)
		err := s.view(func(v state.View) error {
			over, next = v.Invalid(s.sure(), next, atATime)
			return nil
		})
		if err != nil || len(over) == 0 {
			return s.sureAt(next), err
		}
		byAccount := map[streams.AccountID][]streams.MessageID{}
		for _, one := range over {
			byAccount[one.Account] = append(byAccount[one.Account], one.ID)
		}
		for account, ids := range byAccount {
			if err := s.endOf(ctx, account, ids); err != nil {
				return next, err
			}
		}
	}
}

// endOf ends those of an account's messages whose validity is over.
func (s *validity) endOf(ctx context.Context, a streams.AccountID, messages []streams.MessageID) error {
	err := s.decisions.lockAndDecide(ctx, a, func(known state.Account) (event.Event, error) {
		return known.Expire(messages, s.sure())
	})
	if err != nil {
		return fmt.Errorf("end the validity of messages: %w", err)
	}
	return nil
}
