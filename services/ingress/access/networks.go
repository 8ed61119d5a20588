package access

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// Limit: a network from which a login came with the right password is known for 30 days. Beyond it: it is a
	// stranger's.
	// Used up by: a login that stays away. Hurts: only that login: its password waits to be checked among strangers'.
	// Test: TestNetworks.
	knownFor = 30 // days
	// Limit: of an account 1,024 networks and logins are known. Beyond it: the oldest are forgotten.
	// Used up by: somebody who has a password of the account. Hurts: nobody else. Test: TestNetworks.
	maxNetworks = 1024
	// networksEvery is how often new networks are stored, once for each account. A server that is killed forgets those since.
	networksEvery = time.Minute
	// networksWithin is how long storing them may take. If the engine is slower, the rest is stored a minute later.
	networksWithin = 2 * time.Second
	day            = 24 * time.Hour
)

// networks knows the networks from which the logins of each account came with the right password. Such logins do not wait
// among strangers, so nobody can keep them out by guessing. One record of bounded size is stored for an account; it names
// networks by their hashes.
type networks struct {
	bucket  kv.Bucket
	log     *zap.Logger
	now     func() time.Time
	reading singleflight.Group

	mu       sync.Mutex
	accounts map[streams.AccountID]*networksOf
}

// networksOf are those of an account.
type networksOf struct {
	days     map[string]int // by login and network: the day of 1970 on which the login came from there last
	read     time.Time      // when the record was read
	unstored bool           // whether the record lacks something
}

func newNetworks(bucket kv.Bucket, log *zap.Logger, now func() time.Time) *networks {
	return &networks{bucket: bucket, log: log, now: now, accounts: map[streams.AccountID]*networksOf{}}
}

// networkKey names a login in a network.
func networkKey(c Credentials) string {
	sum := sha256.Sum256([]byte(c.Name + "\x00" + c.From.String()))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

func dayOf(t time.Time) int { return int(t.Unix() / int64(day/time.Second)) }

// of gives what is known of an account. The caller holds the lock.
func (n *networks) of(account streams.AccountID) *networksOf {
	one := n.accounts[account]
	if one == nil {
		one = &networksOf{days: map[string]int{}}
		n.accounts[account] = one
	}
	return one
}

// merge adds what a record holds, and keeps the latest entries. A day that has not come was written by a clock that was ahead.
func (o *networksOf) merge(record map[string]int, today int) {
	for key, day := range record {
		o.unstored = o.unstored || day > today
		o.days[key] = max(o.days[key], min(day, today))
	}
	for len(o.days) > maxNetworks { // the oldest by what is stored, so that all ingresses forget the same one
		oldest := ""
		for key, day := range o.days {
			if oldest == "" || day < o.days[oldest] {
				oldest = key
			}
		}
		delete(o.days, oldest)
	}
}

// known says whether a login came with the right password from the same network within knownFor days.
func (n *networks) known(ctx context.Context, account *streams.Account, c Credentials) bool {
	if account == nil || !c.From.IsValid() {
		return false
	}
	key, today := networkKey(c), dayOf(n.now())
	look := func() (known, read bool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		one := n.of(account.ID)
		last, ok := one.days[key]
		return ok && today-last <= knownFor, !one.read.IsZero() && n.now().Sub(one.read) < networksEvery
	}
	if known, read := look(); known || read {
		return known
	}
	// Another ingress may have seen the login, or this one before it started again.
	_, err, _ := n.reading.Do(account.ID.String(), func() (any, error) {
		value, _, err := n.bucket.Get(context.WithoutCancel(ctx), streams.PlacesKey(account.ID))
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		one := n.of(account.ID)
		one.merge(readNetworks(value), today)
		one.read = n.now()
		return nil, nil
	})
	if err != nil {
		n.log.Warn("the networks that logins came from were not read", zap.Stringer("account", account.ID), zap.Error(err))
	}
	known, _ := look()
	return known
}

// note notes that a login came with the right password.
func (n *networks) note(account *streams.Account, c Credentials) {
	if !c.From.IsValid() {
		return
	}
	key, today := networkKey(c), dayOf(n.now())
	n.mu.Lock()
	defer n.mu.Unlock()
	if one := n.of(account.ID); one.days[key] != today {
		delete(one.days, key)
		one.merge(map[string]int{key: today}, today)
		one.unstored = true
	}
}

// run stores news until ctx is done, and once more then.
func (n *networks) run(ctx context.Context) {
	for ended := false; !ended; {
		ended = clock.Sleep(ctx, networksEvery) != nil
		n.store(context.WithoutCancel(ctx))
	}
}

// store stores the news of all accounts. What cannot be stored is tried again the next time.
func (n *networks) store(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, networksWithin)
	defer cancel()
	n.mu.Lock()
	var unstored []streams.AccountID
	for account, one := range n.accounts {
		if one.unstored {
			unstored = append(unstored, account)
			one.unstored = false
		}
	}
	n.mu.Unlock()
	var failed error
	for _, account := range unstored {
		if err := n.write(ctx, account); err != nil {
			failed = err
			n.mu.Lock()
			n.of(account).unstored = true
			n.mu.Unlock()
		}
	}
	if failed != nil {
		n.log.Warn("the networks that logins came from are not stored yet", zap.Error(failed))
	}
}

// write stores what is known of an account, with what others have stored meanwhile.
func (n *networks) write(ctx context.Context, account streams.AccountID) error {
	_, err := n.bucket.Change(ctx, streams.PlacesKey(account), func(before []byte) ([]byte, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		one := n.of(account)
		one.merge(readNetworks(before), dayOf(n.now()))
		return json.Marshal(one.days)
	})
	return err
}

// readNetworks reads an account's record: it is empty where there is none, or where it cannot be read.
func readNetworks(value []byte) (record map[string]int) {
	if json.Unmarshal(value, &record) != nil {
		return nil
	}
	return record
}
