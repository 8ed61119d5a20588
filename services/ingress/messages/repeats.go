package messages

import (
	"sync"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/keylock"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// Limit: a report of a message that changes nothing is stored once in 1 min; of a message that is delivered, not at
	// all. Beyond it: it is answered and not stored.
	// Used up by: phones that repeat reports. Hurts: nobody: the answer is the same.
	// Test: TestReport_RepeatsOnceAMinute.
	repeatWithin = time.Minute
	// Limit: after a dispatcher has not answered about repeats, none is asked for 1 s. Beyond it: until then repeats are
	// stored, but for successes that are known to be.
	// Used up by: a dispatcher that is away. Hurts: nobody. Test: TestReport_RepeatsUnanswered.
	askDeaf = time.Second
	// Limit: an account may have 10,000 items that change nothing stored without a question, at once and a day, at each
	// ingress: repeats, and reports on messages that it does not have. Beyond it: a dispatcher is asked first, and they
	// are not stored.
	// Used up by: one account. Hurts: only that account, whose reports cost one question more.
	// Test: TestReport_Invented.
	maxIdle = 10_000
	// Limit: an ingress remembers the last reports on 10,000 messages of an account, for a minute or two. Beyond it:
	// further repeats count against its 10,000 items.
	// Used up by: one account. Hurts: only that account. Test: TestRepeats_Bounded.
	maxRecalled = 10_000
	// Limit: it remembers the last reports on 200,000 messages of all accounts. Beyond it: repeats of the others count
	// against their own 10,000 items.
	// Used up by: 20 busy accounts. Hurts: little: the others' repeats are stored, and in the end cost a question.
	// Test: TestRepeats_Bounded.
	maxRecalledAll = 20 * maxRecalled
)

// repeats knows which reports can be stored without asking a dispatcher first: those that most likely change something.
// Of each account it remembers which reports were stored within the last minute, and how many that changed nothing.
type repeats struct {
	locks keylock.Locks[streams.AccountID] // reports that a dispatcher is asked about follow each other

	mu         sync.Mutex
	accounts   map[streams.AccountID]*history
	remembered int // reports in all histories
	swept      time.Time
	silence    time.Time // when a dispatcher did not answer last
}

// history is what an account's phones reported lately. A cache of all accounts together would let a busy one push out the
// reports of the others.
type history struct {
	idle    float64   // reports that change nothing and may still be stored without a question
	counted time.Time // up to when the time has given such reports back

	// The last report of each message: those since aged, and those of the minute before.
	recent, before map[streams.MessageID]lastReport
	aged           time.Time
}

// lastReport is a report of a message that was stored.
type lastReport struct {
	at    int64 // nanoseconds
	state streams.State
}

func newRepeats() *repeats { return &repeats{accounts: map[streams.AccountID]*history{}} }

// take says whether a report may be stored without a question: none of its items was reported lately, and the account may
// still store as many that change nothing. It counts all of them as such, until giveBack says which changed something.
func (r *repeats) take(a streams.AccountID, all []entry, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.of(a, now)
	for _, one := range all {
		if last, ok := h.last(one.ID, now); ok && last == one.State {
			return false
		}
	}
	return h.take(len(all))
}

// giveBack uncounts reports that changed something after all.
func (r *repeats) giveBack(a streams.AccountID, n int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.of(a, now)
	h.idle = min(h.idle+float64(n), maxIdle)
}

// mayRepeat says whether a report that changes nothing is stored: not if another one of the message was within a minute.
func (r *repeats) mayRepeat(a streams.AccountID, one entry, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.of(a, now)
	_, lately := h.last(one.ID, now)
	return !lately && h.take(1)
}

// isStored says whether a report is known to be in the stream, from within a minute.
func (r *repeats) isStored(a streams.AccountID, one entry, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.of(a, now).last(one.ID, now)
	return ok && last == one.State
}

// remember notes reports that have been stored.
func (r *repeats) remember(a streams.AccountID, all []entry, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.of(a, now)
	before := len(h.recent)
	for _, one := range all {
		if len(h.recent)+len(h.before) >= maxRecalled || r.remembered+len(h.recent)-before >= maxRecalledAll {
			break
		}
		h.recent[one.ID] = lastReport{now.UnixNano(), one.State}
	}
	r.remembered += len(h.recent) - before
}

// isSilent says whether a dispatcher has failed to answer within askDeaf: then no report waits for an answer.
func (r *repeats) isSilent(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Sub(r.silence) < askDeaf
}

func (r *repeats) noteSilence(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silence = now
}

// of gives an account's history as of now. The caller holds the lock.
func (r *repeats) of(a streams.AccountID, now time.Time) *history {
	if now.Sub(r.swept) >= repeatWithin {
		for a, h := range r.accounts {
			r.age(h, now)
			if h.idle == maxIdle && len(h.recent)+len(h.before) == 0 {
				delete(r.accounts, a) // it is as a new one would be
			}
		}
		r.swept = now
	}
	h := r.accounts[a]
	if h == nil {
		h = &history{idle: maxIdle, counted: now, recent: map[streams.MessageID]lastReport{}, aged: now}
		r.accounts[a] = h
	}
	r.age(h, now)
	return h
}

// age forgets what is older than two minutes, and gives back what the passed time is worth.
func (r *repeats) age(h *history, now time.Time) {
	if passed := now.Sub(h.counted); passed > 0 {
		h.idle = min(h.idle+maxIdle*passed.Hours()/24, maxIdle)
		h.counted = now
	}
	if now.Sub(h.aged) < repeatWithin {
		return
	}
	r.remembered -= len(h.before)
	h.before, h.recent = h.recent, map[streams.MessageID]lastReport{}
	if now.Sub(h.aged) >= 2*repeatWithin {
		r.remembered -= len(h.before)
		h.before = nil
	}
	h.aged = now
}

func (h *history) take(n int) bool {
	if h.idle < float64(n) {
		return false
	}
	h.idle -= float64(n)
	return true
}

// last is the state that was reported of a message within a minute.
func (h *history) last(m streams.MessageID, now time.Time) (streams.State, bool) {
	last, ok := h.recent[m]
	if !ok {
		last, ok = h.before[m]
	}
	return last.state, ok && now.UnixNano()-last.at < int64(repeatWithin)
}
