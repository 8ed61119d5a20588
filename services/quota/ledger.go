package quota

import (
	"strconv"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// ledger has, under one lock, what is counted and what is granted. When a message is
// folded, it moves from its grant into the count in one step, so it is never in both
// or in neither.
type ledger struct {
	now     func() time.Time
	sure    func() time.Time // the time that has surely come: its month counts
	shards  streams.Shards
	maxOpen int

	mu     sync.Mutex
	counts map[monthOfAccount]int64
	folded map[string]uint64 // by stream: the last event in counts
	term   *term             // nil while this instance does not lead
}

// term is what the ledger knows of a leadership.
type term struct {
	leader uint64                 // revision at which the claim was taken
	until  time.Time              // from then on nothing is granted
	lost   chan struct{}          // closed when counts are of other streams than before
	open   map[streams.Shard]bool // granted in
	full   map[streams.Shard]bool // the stream has no room for a barrier, and so for no message either
	given  uint64                 // grants so far, for their ids
	grants *grants
	// released are grants that were given back while ingresses are still being asked
	// for grants of earlier leaders: an answer under way may list them. Nil afterwards.
	released map[string]bool
}

func newLedger(now func() time.Time, shards streams.Shards, maxOpen int) *ledger {
	return &ledger{now: now, sure: now, shards: shards, maxOpen: maxOpen, counts: map[monthOfAccount]int64{}, folded: map[string]uint64{}}
}

var (
	errNotLeading = &fault.Error{Kind: fault.Unavailable, Code: "quota_not_leading", Text: "Quota is changing its leader; try again", RetryAfter: time.Second}
	errRecovering = &fault.Error{Kind: fault.Unavailable, Code: "quota_recovering", Text: "Quota is finding out what is in use; try again", RetryAfter: 5 * time.Second}
	errFull       = &fault.Error{Kind: fault.Full, Code: "queue_full", Text: "The queue is full", RetryAfter: 30 * time.Second}
	errTooMany    = &fault.Error{Kind: fault.Unavailable, Code: "quota_busy", Text: "Too many messages are about to be stored; try again", RetryAfter: time.Second}
)

// load takes over the content of a whole projection file. It may be a file that was
// rebuilt up to where the live one was. Or it is empty, because the streams are not
// the ones that were folded, and are folded from their beginning. That ends the term.
func (l *ledger) load(tx *bolt.Tx) error {
	counts, err := loadCounts(tx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts = counts
	if len(counts) > 0 {
		return nil
	}
	clear(l.folded)
	if l.term != nil && !l.term.isLost() {
		close(l.term.lost)
	}
	return nil
}

// startAt notes up to which event of a stream the loaded counts go.
func (l *ledger) startAt(stream string, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.folded[stream] = seq
}

// fold counts what was committed to the projection, as Apply does, and deducts it
// from the grants. A message that comes again changes neither.
func (l *ledger) fold(events []projection.Event, again func(projection.Event, counted) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.folded[e.Stream] = e.Seq
		if shard, month, ok := readOver(e); ok {
			l.endOthers(shard, month)
		}
		c, ok := readCounted(e)
		if !ok || again(e, c) {
			continue
		}
		l.counts[c.of()]++
		if one := l.granted(c.grant, c.account); one != nil {
			l.term.grants.take(one, 1)
		}
	}
}

// endOthers drops the counts of a shard's other months, as Apply does.
func (l *ledger) endOthers(shard streams.Shard, month string) {
	for one := range l.counts {
		if one.month != month && l.shards.Of(one.account) == shard {
			delete(l.counts, one)
		}
	}
}

// others lists the shards that have counts of other months.
func (l *ledger) others(month string) map[streams.Shard]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := map[streams.Shard]bool{}
	for one := range l.counts {
		if one.month != month {
			found[l.shards.Of(one.account)] = true
		}
	}
	return found
}

// granted finds an open grant of an account.
func (l *ledger) granted(id string, account streams.AccountID) *grant {
	if l.term == nil || id == "" {
		return nil
	}
	if one := l.term.grants.byID[id]; one != nil && one.Account == account {
		return one
	}
	return nil
}

func (t *term) isLost() bool {
	select {
	case <-t.lost:
		return true
	default:
		return false
	}
}

// begin opens an empty term. lost is closed when the term has to end.
func (l *ledger) begin(leader uint64, until time.Time) (lost <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term = &term{
		leader:   leader,
		until:    until,
		lost:     make(chan struct{}),
		open:     make(map[streams.Shard]bool),
		full:     make(map[streams.Shard]bool),
		grants:   newGrants(),
		released: make(map[string]bool),
	}
	return l.term.lost
}

// extend moves the end of the term.
func (l *ledger) extend(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term.until = until
}

// end closes the term. The next leader asks the ingresses for its grants.
func (l *ledger) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term = nil
}

// openShard begins to grant to the accounts of a shard.
func (l *ledger) openShard(shard streams.Shard) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term.open[shard] = true
}

// fullShard notes that a shard's stream has no room for a barrier.
func (l *ledger) fullShard(shard streams.Shard) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != nil {
		l.term.full[shard] = true
	}
}

// ready gives the reason why nothing can be said about an account now, nil if there
// is none.
func (l *ledger) ready(now time.Time, account streams.AccountID) error {
	switch {
	case l.term == nil || l.term.isLost() || !now.Before(l.term.until):
		return errNotLeading
	case !l.term.open[l.shards.Of(account)] && l.term.full[l.shards.Of(account)]:
		return errFull
	case !l.term.open[l.shards.Of(account)]:
		return errRecovering
	}
	return nil
}

// current is the month that counts: that of the time that has surely come, whatever
// a wrong clock says.
func (l *ledger) current() string { return l.sure().UTC().Format(monthLayout) }

// used is how many messages an account has used in a month, with its open grants.
func (l *ledger) used(account streams.AccountID, month string) int64 {
	one := monthOfAccount{account, month}
	return l.term.grants.reserved[one] + l.counts[one]
}

// reserve grants all messages of a request, or none.
func (l *ledger) reserve(r request.Reserve) (request.Grant, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if err := l.ready(now, r.Account); err != nil {
		return request.Grant{}, err
	}
	month := l.current()
	used := l.used(r.Account, month)
	// used+count > limit could overflow.
	if used > r.Limit-int64(r.Count) {
		refusal := fault.New(fault.LimitExceeded, "limit_exceeded", "The monthly limit of messages is reached")
		refusal.Limit, refusal.Used = r.Limit, used
		if stored := used - l.term.grants.reserved[monthOfAccount{r.Account, month}]; stored <= r.Limit-int64(r.Count) {
			refusal.Code = request.LimitReserved
		}
		return request.Grant{}, refusal
	}
	if len(l.term.grants.byID) >= l.maxOpen {
		return request.Grant{}, errTooMany
	}
	l.term.given++
	given := request.Grant{
		ID:      strconv.FormatUint(l.term.leader, 36) + "-" + strconv.FormatUint(l.term.given, 36),
		Account: r.Account,
		Month:   month,
		Count:   r.Count,
		Leader:  l.term.leader,

		Instance: r.Instance,
	}
	l.term.grants.open(given, now.Add(request.GrantTTL))
	return given, nil
}

// release closes a grant that is given back. One that is not open is closed already.
func (l *ledger) release(given request.Grant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == nil {
		return
	}
	if one := l.granted(given.ID, given.Account); one != nil {
		l.term.grants.take(one, one.left)
	} else if l.term.released != nil && len(l.term.released) < l.maxOpen {
		l.term.released[given.ID] = true
	}
}

// usage is how many messages an account has used in the month that counts.
func (l *ledger) usage(account streams.AccountID) (request.Usage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if err := l.ready(now, account); err != nil {
		return request.Usage{}, err
	}
	month := l.current()
	return request.Usage{Month: month, Used: l.used(account, month)}, nil
}

// takeOver opens grants of earlier leaders for another GrantTTL: how old they are is
// not known. It returns those that were not open yet, and up to which event each
// stream is folded. Later events are deducted from these grants by fold; earlier ones
// have to be read again, see deduct.
func (l *ledger) takeOver(given []request.Grant) (taken []request.Grant, folded map[string]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	folded = make(map[string]uint64, len(l.folded))
	for stream, seq := range l.folded {
		folded[stream] = seq
	}
	ends := l.now().Add(request.GrantTTL)
	for _, one := range given {
		known := l.term.grants.byID[one.ID] != nil || l.term.released[one.ID]
		if known || one.Leader >= l.term.leader || !countable(one.Count) {
			continue
		}
		l.term.grants.open(one, ends)
		taken = append(taken, one)
	}
	return taken, folded
}

// allTaken ends the time of takeOver: it is not called again in this term.
func (l *ledger) allTaken() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term.released = nil
}

// deduct deducts messages from grants that had arrived before takeOver.
func (l *ledger) deduct(arrived map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, count := range arrived {
		if one := l.term.grants.byID[id]; one != nil {
			l.term.grants.take(one, count)
		}
	}
}

// expire closes grants whose time is over.
func (l *ledger) expire(due []request.Grant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range due {
		if one := l.term.grants.byID[d.ID]; one != nil {
			l.term.grants.take(one, one.left)
		}
	}
}

// due lists the grants whose time is over, by shard.
func (l *ledger) due() map[streams.Shard][]request.Grant {
	l.mu.Lock()
	defer l.mu.Unlock()
	due := make(map[streams.Shard][]request.Grant)
	for _, one := range l.term.grants.due(l.now()) {
		shard := l.shards.Of(one.Account)
		due[shard] = append(due[shard], one)
	}
	return due
}

// openGrants counts the open grants.
func (l *ledger) openGrants() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == nil {
		return 0
	}
	return len(l.term.grants.byID)
}

func countable(count int) bool { return count >= 1 && count <= maxCount }
