package bus

import (
	"context"
	"fmt"
	"time"
)

// Skew measures how far the clock now is ahead of the clock of a stream's leader.
// It is wrong by at most half of the time that the question and its answer took.
func (b *Bus) Skew(ctx context.Context, stream string, now func() time.Time) (time.Duration, error) {
	asked := now()
	s, err := b.JS.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("ask %s for the time: %w", stream, err)
	}
	return asked.Add(now().Sub(asked) / 2).Round(0).Sub(s.CachedInfo().TimeStamp), nil
}
