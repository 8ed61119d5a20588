package phone

import (
	"math/rand/v2"
	"time"
)

const (
	firstPause = 200 * time.Millisecond
	maxPause   = 10 * time.Second
)

// backoff gives longer and longer pauses, no two phones the same ones.
type backoff struct {
	rand *rand.Rand
	last time.Duration
}

// next gives the pause after one more error, at least the one asked for.
func (b *backoff) next(asked time.Duration) time.Duration {
	b.last = min(max(2*b.last, firstPause), maxPause)
	if asked > 0 {
		return asked + time.Duration(b.rand.Int64N(int64(asked)/10+1))
	}
	return b.jitter(b.last)
}

func (b *backoff) reset() { b.last = 0 }

// jitter gives a duration from half of d to one and a half.
func (b *backoff) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(b.rand.Int64N(int64(d)+1))
}
