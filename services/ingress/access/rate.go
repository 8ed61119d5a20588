package access

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Use is what a request is for. A token has its rate for each of them, so that a phone that has asked too often can
// still report what it has sent: an SMS whose report is rejected goes out again.
type Use = request.Kind

// What requests are for.
const (
	Posting   = request.Posting   // messages to send
	Pulling   = request.Pulling   // messages to be sent, or where they stand
	Reporting = request.Reporting // what became of messages
)

// Rate says how much of its rate a token has left for a use. Limit 0 means that it has no rate.
type Rate struct {
	Limit     int           // requests a minute, and at once
	Remaining int           // requests that would be taken now
	Reset     time.Duration // until Remaining is Limit again
}

// per is the time in which a token may make its plan's rate of requests.
const per = time.Minute

// A larger rate would leave no time between two requests to count with.
//
// Limit: a rate is at most 1,000,000,000 requests a minute, more than a token can use. Beyond it: more counts as that.
// Used up by: the operator, who sets the rate. Hurts: nobody. Test: FuzzAccount.
const maxRate = 1_000_000_000

// rates holds a token bucket for each use of a token within the last minute. A bucket that was not used for that long is
// full, as a new one is, so it need not be kept.
type rates struct {
	mu      sync.Mutex
	buckets map[used]*bucket
	swept   time.Time
}

// used is what a token was used for.
type used struct {
	token streams.TokenHash
	use   Use
}

type bucket struct {
	*rate.Limiter
	used  time.Time
	taken int // requests that other ingresses have not been told of
}

func newRates() *rates { return &rates{buckets: map[used]*bucket{}} }

// take counts a request of a token whose plan allows limit requests a minute of each use. A long poll is one request,
// however long it waits.
func (r *rates) take(of used, limit int, now time.Time) (Rate, error) {
	if limit <= 0 {
		return Rate{}, nil
	}
	limit = min(limit, maxRate)
	r.mu.Lock()
	b := r.bucket(of, limit, now)
	r.mu.Unlock()
	each := per / time.Duration(limit)
	ok := b.AllowN(now, 1)
	tokens := b.TokensAt(now)
	current := Rate{Limit: limit, Remaining: int(max(tokens, 0) + 1e-6), Reset: time.Duration((float64(limit) - tokens) * float64(each))}
	if ok {
		r.mu.Lock()
		b.taken++
		r.mu.Unlock()
		return current, nil
	}
	f := fault.New(fault.RateLimited, "rate_limited", "Too many requests")
	f.RetryAfter = time.Duration((1 - tokens) * float64(each))
	return current, f
}

// bucket gives the bucket of a use. The caller holds the lock.
func (r *rates) bucket(of used, limit int, now time.Time) *bucket {
	if now.Sub(r.swept) >= per {
		for other, b := range r.buckets {
			if now.Sub(b.used) >= per {
				delete(r.buckets, other)
			}
		}
		r.swept = now
	}
	b := r.buckets[of]
	if b == nil {
		b = &bucket{Limiter: rate.NewLimiter(rate.Every(per/time.Duration(limit)), limit)}
		r.buckets[of] = b
	}
	if b.Burst() != limit { // the plan has changed
		b.SetLimitAt(now, rate.Every(per/time.Duration(limit)))
		b.SetBurstAt(now, limit)
	}
	b.used = now
	return b
}

// news lists what was taken since the last call.
func (r *rates) news() []request.Use {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []request.Use
	for of, b := range r.buckets {
		if b.taken > 0 {
			all = append(all, request.Use{Token: of.token, Kind: of.use, Rate: b.Burst(), Count: b.taken})
			b.taken = 0
		}
	}
	return all
}

// deduct takes off what another ingress let through. If two ingresses let requests through at once, a token may come to
// owe requests, at most its rate.
func (r *rates) deduct(one request.Use, now time.Time) {
	if one.Rate <= 0 || one.Count <= 0 || one.Kind < Posting || one.Kind > Reporting {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	of := used{one.Token, one.Kind}
	b := r.buckets[of]
	if b == nil {
		b = r.bucket(of, min(one.Rate, maxRate), now)
	}
	// This ingress may have seen the account change, and the other one not yet.
	owed := int(float64(b.Burst()) + b.TokensAt(now))
	if n := min(one.Count, b.Burst(), owed); n > 0 {
		b.ReserveN(now, n)
	}
	b.used = now
}
