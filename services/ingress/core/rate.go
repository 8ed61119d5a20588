package core

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
)

// Rate is where a token stands. Limit 0 means that it has no rate.
type Rate struct {
	Limit     int           // requests a minute, and at once
	Remaining int           // requests that would be taken now
	Reset     time.Duration // until Remaining is Limit again
}

// per is the time in which a token may make its plan's rate of requests.
const per = time.Minute

// rates holds a bucket for every token that was used within the last minute. A bucket that rested for that long is
// full, as a new one is, so the others need not be kept.
type rates struct {
	mu      sync.Mutex
	buckets map[streams.TokenHash]*bucket
	swept   time.Time
}

type bucket struct {
	*rate.Limiter
	used time.Time
}

func newRates() *rates { return &rates{buckets: map[streams.TokenHash]*bucket{}} }

// take counts a request of a token whose plan allows limit requests a minute.
func (r *rates) take(token streams.TokenHash, limit int, now time.Time) (Rate, error) {
	if limit <= 0 {
		return Rate{}, nil
	}
	b := r.bucket(token, limit, now)
	each := per / time.Duration(limit)
	ok := b.AllowN(now, 1)
	tokens := b.TokensAt(now)
	stands := Rate{Limit: limit, Remaining: int(max(tokens, 0) + 1e-6), Reset: time.Duration((float64(limit) - tokens) * float64(each))}
	if ok {
		return stands, nil
	}
	f := fault.New(fault.RateLimited, "rate_limited", "Too many requests")
	f.RetryAfter = time.Duration((1 - tokens) * float64(each))
	return stands, f
}

func (r *rates) bucket(token streams.TokenHash, limit int, now time.Time) *bucket {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.swept) >= per {
		for token, b := range r.buckets {
			if now.Sub(b.used) >= per {
				delete(r.buckets, token)
			}
		}
		r.swept = now
	}
	b := r.buckets[token]
	if b == nil {
		b = &bucket{Limiter: rate.NewLimiter(rate.Every(per/time.Duration(limit)), limit)}
		r.buckets[token] = b
	}
	if b.Burst() != limit { // the plan has changed
		b.SetLimitAt(now, rate.Every(per/time.Duration(limit)))
		b.SetBurstAt(now, limit)
	}
	b.used = now
	return b
}
