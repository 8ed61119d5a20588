package bus

import (
	"context"
	"fmt"
	"time"
)

// Skew is how far the clock now is ahead of that of a stream's leader. The
// answer's way makes it wrong by at most half of what the question took.
func (b *Bus) Skew(ctx context.Context, stream string, now func() time.Time) (time.Duration, error) {
	asked := now()
	s, err := b.JS.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("ask %s for the time: %w", stream, err)
	}
	return asked.Add(now().Sub(asked) / 2).Round(0).Sub(s.CachedInfo().TimeStamp), nil
}
