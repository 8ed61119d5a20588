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
	// placesWithin is how long storing them may take. Used up by an engine that is slow: the rest is stored a minute later.
	placesWithin = 2 * time.Second
	day          = 24 * time.Hour
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
func (a *Access) wasHere(ctx context.Context, account *streams.Account, said Credentials) bool {
	if account == nil || !said.From.IsValid() {
		return false
	}
	place, today := placeOf(said), dayOf(a.now())
	look := func() (known, read bool) {
		a.places.mu.Lock()
		defer a.places.mu.Unlock()
		one := a.places.of(account.ID)
		last, ok := one.days[place]
		return ok && today-last <= knownFor, !one.read.IsZero() && a.now().Sub(one.read) < placesEvery
	}
	if known, read := look(); known || read {
		return known
	}
	// Another ingress may have seen it, or the process before.
	_, err, _ := a.places.reading.Do(account.ID.String(), func() (any, error) {
		value, _, err := a.registry.Get(context.WithoutCancel(ctx), streams.PlacesKey(account.ID))
		if err != nil {
			return nil, err
		}
		a.places.mu.Lock()
		defer a.places.mu.Unlock()
		one := a.places.of(account.ID)
		one.merge(readPlaces(value), today)
		one.read = a.now()
		return nil, nil
	})
	if err != nil {
		a.log.Warn("where logins came from was not read", zap.Stringer("account", account.ID), zap.Error(err))
	}
	known, _ := look()
	return known
}

// here notes that a login came with the right password.
func (a *Access) here(account *streams.Account, said Credentials) {
	if !said.From.IsValid() {
		return
	}
	place, today := placeOf(said), dayOf(a.now())
	a.places.mu.Lock()
	defer a.places.mu.Unlock()
	if one := a.places.of(account.ID); one.days[place] != today {
		delete(one.days, place)
		one.merge(map[string]int{place: today}, today)
		one.unsaid = true
	}
}

// keepPlaces stores what is new, until ctx is done and once more then.
func (a *Access) keepPlaces(ctx context.Context) {
	for ended := false; !ended; {
		ended = clock.Sleep(ctx, placesEvery) != nil
		a.storePlaces(context.WithoutCancel(ctx))
	}
}

func (a *Access) storePlaces(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, placesWithin)
	defer cancel()
	a.places.mu.Lock()
	var unsaid []streams.AccountID
	for account, one := range a.places.accounts {
		if one.unsaid {
			unsaid = append(unsaid, account)
			one.unsaid = false
		}
	}
	a.places.mu.Unlock()
	var failed error
	for _, account := range unsaid {
		if err := a.writePlaces(ctx, account); err != nil {
			failed = err
			a.places.mu.Lock()
			a.places.of(account).unsaid = true
			a.places.mu.Unlock()
		}
	}
	if failed != nil {
		a.log.Warn("where logins came from is not stored yet", zap.Error(failed))
	}
}

// writePlaces stores what is known of an account, with what others have stored meanwhile.
func (a *Access) writePlaces(ctx context.Context, account streams.AccountID) error {
	_, err := a.registry.Change(ctx, streams.PlacesKey(account), func(before []byte) ([]byte, error) {
		a.places.mu.Lock()
		defer a.places.mu.Unlock()
		one := a.places.of(account)
		one.merge(readPlaces(before), dayOf(a.now()))
		return json.Marshal(one.days)
	})
	return err
}

// readPlaces reads the record of an account: none, where there is none or it cannot be read.
func readPlaces(value []byte) (record map[string]int) {
	if json.Unmarshal(value, &record) != nil {
		return nil
	}
	return record
}
