package core

import (
	"sync"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/keylock"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// repeatWithin is how long a report of a message is remembered: a repeat in
	// this time that changes nothing is not stored. Used by phones that
	// repeat reports: the answer stays the same, and it hurts nobody.
	repeatWithin = time.Minute
	// askDeaf is how long no dispatcher is asked after one has not answered.
	// Used up by a dispatcher that is away; nobody waits for it.
	askDeaf = time.Second
	// maxIdle is how many reports that change nothing an account may have stored
	// unasked, at once and a day: repeats, and such of messages that it does not
	// have. Beyond them a dispatcher is asked first. Who uses them up pays one
	// question a report, and nobody else does.
	maxIdle = 10_000
	// maxRecalled is the most reports that are remembered of an account. Of one
	// that uses them up, further repeats count against maxIdle.
	maxRecalled = 10_000
	// maxRecalledAll is the same of all accounts together: 20 busy accounts use
	// them up, and the others' repeats then count against maxIdle as well.
	maxRecalledAll = 20 * maxRecalled
)

// repeats knows which accounts' reports can be stored unasked: such as most
// likely change something.
type repeats struct {
	turns keylock.Locks[streams.AccountID] // reports that a dispatcher is asked about follow each other

	mu       sync.Mutex
	accounts map[streams.AccountID]*told
	recalled int // reports of all accounts
	swept    time.Time
	deaf     time.Time // when a dispatcher last did not answer
}

// told is what an account's phones said lately.
type told struct {
	idle    float64 // reports that change nothing and may still be stored unasked
	counted time.Time

	// What was said last of messages: since turned, and in the time before.
	recent, before map[streams.MessageID]word
	turned         time.Time
}

// word is what was said of a message, and stored.
type word struct {
	at    int64 // nanoseconds
	state streams.State
}

func newRepeats() *repeats { return &repeats{accounts: map[streams.AccountID]*told{}} }

// take says whether a report may be stored unasked: none of it was reported
// lately, and the account has as many reports left that may change nothing.
// They are taken until settle gives back those that did.
func (r *repeats) take(a streams.AccountID, all []said, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.told(a, now)
	for _, one := range all {
		if last, ok := t.last(one.ID, now); ok && last == one.State {
			return false
		}
	}
	return t.take(len(all))
}

// settle gives back reports that were taken.
func (r *repeats) settle(a streams.AccountID, n int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.told(a, now)
	t.idle = min(t.idle+float64(n), maxIdle)
}

// again says whether a report that changes nothing is to be stored: not if one
// of the message was within a minute.
func (r *repeats) again(a streams.AccountID, one said, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.told(a, now)
	_, lately := t.last(one.ID, now)
	return !lately && t.take(1)
}

// stored says whether a report is known to stand in the stream, from within a
// minute.
func (r *repeats) stored(a streams.AccountID, one said, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.told(a, now).last(one.ID, now)
	return ok && last == one.State
}

// remember notes what has been stored.
func (r *repeats) remember(a streams.AccountID, all []said, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.told(a, now)
	before := len(t.recent)
	for _, one := range all {
		if len(t.recent)+len(t.before) >= maxRecalled || r.recalled+len(t.recent)-before >= maxRecalledAll {
			break
		}
		t.recent[one.ID] = word{now.UnixNano(), one.State}
	}
	r.recalled += len(t.recent) - before
}

// silent says that no dispatcher answered within askDeaf: nobody waits for one
// then.
func (r *repeats) silent(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Sub(r.deaf) < askDeaf
}

func (r *repeats) unanswered(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deaf = now
}

// told gives an account's, as of now. The caller holds the lock.
func (r *repeats) told(a streams.AccountID, now time.Time) *told {
	if now.Sub(r.swept) >= repeatWithin {
		for a, t := range r.accounts {
			r.turn(t, now)
			if t.idle == maxIdle && len(t.recent)+len(t.before) == 0 {
				delete(r.accounts, a) // as one of which nothing was heard
			}
		}
		r.swept = now
	}
	t := r.accounts[a]
	if t == nil {
		t = &told{idle: maxIdle, counted: now, recent: map[streams.MessageID]word{}, turned: now}
		r.accounts[a] = t
	}
	r.turn(t, now)
	return t
}

// turn forgets what is older than two minutes, and counts the account's time.
func (r *repeats) turn(t *told, now time.Time) {
	if passed := now.Sub(t.counted); passed > 0 {
		t.idle = min(t.idle+maxIdle*passed.Hours()/24, maxIdle)
		t.counted = now
	}
	if now.Sub(t.turned) < repeatWithin {
		return
	}
	r.recalled -= len(t.before)
	t.before, t.recent = t.recent, map[streams.MessageID]word{}
	if now.Sub(t.turned) >= 2*repeatWithin {
		r.recalled -= len(t.before)
		t.before = nil
	}
	t.turned = now
}

func (t *told) take(n int) bool {
	if t.idle < float64(n) {
		return false
	}
	t.idle -= float64(n)
	return true
}

// last is the state that was said of a message within a minute.
func (t *told) last(m streams.MessageID, now time.Time) (streams.State, bool) {
	last, ok := t.recent[m]
	if !ok {
		last, ok = t.before[m]
	}
	return last.state, ok && now.UnixNano()-last.at < int64(repeatWithin)
}
