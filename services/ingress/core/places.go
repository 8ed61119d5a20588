package core

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// knownFor is for how many days a network is known from which a login came with the right password. A
	// login that stays away longer stands in line with strangers; it hurts only that one.
	knownFor = 30
	// maxPlaces bounds what is known of an account. Only who has its passwords can use it up, and hurts nobody else.
	maxPlaces = 1024
	// placesEvery is how often what is new is stored, once for each account: a server that is killed forgets so much.
	placesEvery = time.Minute
	day         = 24 * time.Hour
)

// places knows from which networks the logins of each account came with the right password, so that others who guess
// do not keep them out. What is stored of an account is one record of bounded size; it names networks by hashes.
type places struct {
	reading singleflight.Group

	mu       sync.Mutex
	accounts map[streams.AccountID]*placesOf
}

type placesOf struct {
	days   map[string]int // by place: the day of 1970 on which it was last seen
	read   time.Time      // when the record was read
	unsaid bool           // there is something new
}

func newPlaces() *places { return &places{accounts: map[streams.AccountID]*placesOf{}} }

// placeOf names a login in a network.
func placeOf(said Credentials) string {
	sum := sha256.Sum256([]byte(said.Name + "\x00" + said.From.String()))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

func dayOf(t time.Time) int { return int(t.Unix() / int64(day/time.Second)) }

// of gives what is known of an account. The caller holds the lock.
func (p *places) of(account streams.AccountID) *placesOf {
	one := p.accounts[account]
	if one == nil {
		one = &placesOf{days: map[string]int{}}
		p.accounts[account] = one
	}
	return one
}

// merge adds what a record says, and leaves of all the latest. A day to come was written by a clock that was ahead.
func (o *placesOf) merge(record map[string]int, today int) {
	for place, day := range record {
		o.unsaid = o.unsaid || day > today
		o.days[place] = max(o.days[place], min(day, today))
	}
	for len(o.days) > maxPlaces {
		oldest := ""
		for place, day := range o.days {
			if oldest == "" || day < o.days[oldest] {
				oldest = place
			}
		}
		delete(o.days, oldest)
	}
}

// wasHere says whether a login came with the right password from where the caller is, within knownFor days.
func (c *Core) wasHere(ctx context.Context, account *streams.Account, said Credentials) bool {
	if account == nil || !said.From.IsValid() {
		return false
	}
	place, today := placeOf(said), dayOf(c.now())
	look := func() (known, read bool) {
		c.places.mu.Lock()
		defer c.places.mu.Unlock()
		one := c.places.of(account.ID)
		last, ok := one.days[place]
		return ok && today-last <= knownFor, !one.read.IsZero() && c.now().Sub(one.read) < placesEvery
	}
	if known, read := look(); known || read {
		return known
	}
	// Another ingress may have seen it, or the process before.
	_, err, _ := c.places.reading.Do(account.ID.String(), func() (any, error) {
		record, _, err := c.readPlaces(context.WithoutCancel(ctx), account.ID)
		if err != nil {
			return nil, err
		}
		c.places.mu.Lock()
		defer c.places.mu.Unlock()
		one := c.places.of(account.ID)
		one.merge(record, today)
		one.read = c.now()
		return nil, nil
	})
	if err != nil {
		c.log.Warn("where logins came from was not read", zap.Stringer("account", account.ID), zap.Error(err))
	}
	known, _ := look()
	return known
}

// here notes that a login came with the right password.
func (c *Core) here(account *streams.Account, said Credentials) {
	if !said.From.IsValid() {
		return
	}
	place, today := placeOf(said), dayOf(c.now())
	c.places.mu.Lock()
	defer c.places.mu.Unlock()
	if one := c.places.of(account.ID); one.days[place] != today {
		delete(one.days, place)
		one.merge(map[string]int{place: today}, today)
		one.unsaid = true
	}
}

// keepPlaces stores what is new, until ctx is done and once more then.
func (c *Core) keepPlaces(ctx context.Context) {
	for ended := false; !ended; {
		ended = clock.Sleep(ctx, placesEvery) != nil
		c.storePlaces(context.WithoutCancel(ctx))
	}
}

func (c *Core) storePlaces(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	c.places.mu.Lock()
	var unsaid []streams.AccountID
	for account, one := range c.places.accounts {
		if one.unsaid {
			unsaid = append(unsaid, account)
			one.unsaid = false
		}
	}
	c.places.mu.Unlock()
	var failed error
	for _, account := range unsaid {
		if err := c.writePlaces(ctx, account); err != nil {
			failed = err
			c.places.mu.Lock()
			c.places.of(account).unsaid = true
			c.places.mu.Unlock()
		}
	}
	if failed != nil {
		c.log.Warn("where logins came from is not stored yet", zap.Error(failed))
	}
}

// writePlaces stores what is known of an account, with what others have stored meanwhile.
func (c *Core) writePlaces(ctx context.Context, account streams.AccountID) error {
	for range changeTries {
		record, revision, err := c.readPlaces(ctx, account)
		if err != nil {
			return err
		}
		c.places.mu.Lock()
		one := c.places.of(account)
		one.merge(record, dayOf(c.now()))
		value, err := json.Marshal(one.days)
		c.places.mu.Unlock()
		if err != nil {
			return err
		}
		bucket, err := c.bus.JS.KeyValue(ctx, streams.RegistryBucket)
		if err == nil {
			_, err = bucket.Update(ctx, streams.PlacesKey(account), value, revision)
		}
		if !errors.Is(err, jetstream.ErrKeyExists) && !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return err
		}
	}
	return errChanging
}

// readPlaces gives the record of an account: none, where there is none or it cannot be read.
func (c *Core) readPlaces(ctx context.Context, account streams.AccountID) (map[string]int, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	bucket, err := c.bus.JS.KeyValue(ctx, streams.RegistryBucket)
	if err != nil {
		return nil, 0, err
	}
	entry, err := bucket.Get(ctx, streams.PlacesKey(account))
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return nil, 0, nil
	case err != nil:
		return nil, 0, err
	}
	var record map[string]int
	if json.Unmarshal(entry.Value(), &record) != nil {
		record = nil
	}
	return record, entry.Revision(), nil
}
