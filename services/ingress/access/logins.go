package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// verifiedFor is how long a password that was checked is not checked again, and wrongFor a wrong one.
	// Passed by a login that rests: its next request costs a check, and only it waits.
	verifiedFor = 10 * time.Minute
	wrongFor    = time.Minute
	// maxVerified bounds the right passwords in memory, the wrong ones, and the guessers that are counted. Strangers can
	// use up the last two: then a wrong password is checked once more, and a guesser is not counted, but waits with all
	// others. Right passwords are among themselves. Used up by that many logins: one that is forgotten costs
	// its owner a check.
	maxVerified = 10_000
	// failuresAMinute is how many wrong passwords a network may send for a login, at once and a minute. Who uses it up
	// is refused; so are others of that network who never came in there, and nobody else.
	failuresAMinute = 10
	// maxLogin is the most bytes of a login.
	maxLogin = 4 * 64
	// maxChecks bounds the passwords that wait to be checked: those of strangers, and apart from them those of callers
	// who were let in before from where they are. Nobody has more of the places than he leaves to others.
	// Used up by strangers who guess, from many networks: other strangers and new places are told to wait.
	maxChecks = 64
	// strangersRest is how many times as long as a check took strangers leave its processor to others. Used up by strangers
	// who guess: other strangers wait.
	strangersRest = 3
)

var (
	errLogin    = fault.New(fault.Unauthenticated, "invalid_login", "Invalid credentials")
	errFailures = &fault.Error{Kind: fault.RateLimited, Code: "too_many_failures", Text: "Too many wrong passwords for this login", RetryAfter: time.Minute / failuresAMinute}
	errChecks   = &fault.Error{Kind: fault.Unavailable, Code: "busy", Text: "Too many passwords are being checked, try again", RetryAfter: retrySoon}
)

// Credentials are what callers say who they are.
type Credentials struct {
	Name     string
	Password secret.String
	From     netip.Prefix // the callers' network, as httpx.Proxies gives it; none: it is not known
}

// login is who a login belongs to.
type login struct {
	account *streams.Account
	hash    string           // bcrypt
	device  streams.DeviceID // whose own login it is; zero: the account's
}

// passwords checks passwords against their hashes, each once: that takes a processor for a twentieth of a second.
type passwords struct {
	now       func() time.Time
	key       [32]byte // of this process: what is remembered is no password's plain hash
	strangers *line
	known     *line // callers who were let in before from where they are; strangers do not hold them up
	flight    singleflight.Group

	mu       sync.Mutex
	right    map[[32]byte]checked
	wrong    map[[32]byte]checked
	failures map[guesser]*rate.Limiter
}

// guesser is who may be guessing a password: counted by login alone, one who guesses would lock its owner out.
type guesser struct {
	from  netip.Prefix
	login string
}

// checked is what a password was checked against, and until when that counts.
type checked struct {
	hash  string
	until time.Time
}

func newPasswords(now func() time.Time) *passwords {
	// A check keeps its processor until the runtime interrupts it, 10 ms later. On all of them at once, each step of every
	// other request would wait for that. Used up by strangers who guess: who is known waits for one of their checks.
	half := max(runtime.GOMAXPROCS(0)/2, 1)
	processors := semaphore.NewWeighted(int64(half))
	p := &passwords{
		// Used up by strangers who guess: other passwords that were not checked lately wait.
		now: now, strangers: newLine(max(runtime.GOMAXPROCS(0)/4, 1), processors), known: newLine(half, processors),
		right: map[[32]byte]checked{}, wrong: map[[32]byte]checked{}, failures: map[guesser]*rate.Limiter{},
	}
	_, _ = rand.Read(p.key[:])
	return p
}

// nobody is what the password of a login is checked against that nobody has, so that it takes as long.
var nobody = sync.OnceValue(func() string {
	hash, _ := bcrypt.GenerateFromPassword([]byte("nobody"), bcrypt.DefaultCost)
	return string(hash)
})

// check says whether a login's password has that hash. Whether the caller was let in before from where he is, is asked
// only if the password has to be checked.
func (p *passwords) check(ctx context.Context, said Credentials, hash string, wasHere func() bool) error {
	known := hash != ""
	if !known {
		hash = nobody()
	}
	if len(said.Name) > maxLogin {
		return errLogin // nobody has it, and it is not to be kept
	}
	key := p.keyOf(said.Name, said.Password)
	if right, ok := p.remembered(key, hash); ok {
		return verdict(right && known)
	}
	who, line, flight := guesser{said.From, said.Name}, p.strangers, string(key[:])
	place := said.From.String()
	switch {
	case known && wasHere():
		line, flight, place = p.known, flight+"known", place+" "+said.Name
	case !p.mayFail(who):
		return errFailures
	}
	checking := p.flight.DoChan(flight, func() (any, error) { return p.compare(line, place, key, said.Password, hash) })
	var got singleflight.Result
	select {
	case got = <-checking:
	case <-ctx.Done(): // who hung up leaves the check to others who wait for the same one
		return errChecks.With(ctx.Err())
	}
	if got.Err != nil {
		return got.Err
	}
	if ok := got.Val.(bool) && known; !ok {
		if line == p.strangers {
			p.failed(who)
		}
		return errLogin
	}
	return nil
}

func verdict(right bool) error {
	if !right {
		return errLogin
	}
	return nil
}

func (p *passwords) keyOf(name string, password secret.String) (key [32]byte) {
	mac := hmac.New(sha256.New, p.key[:])
	mac.Write([]byte(name + "\x00" + password.Reveal()))
	copy(key[:], mac.Sum(nil))
	return key
}

func (p *passwords) remembered(key [32]byte, hash string) (right, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	holds := func(c checked, ok bool) bool { return ok && c.hash == hash && p.now().Before(c.until) }
	c, ok := p.right[key]
	if holds(c, ok) {
		return true, true
	}
	c, ok = p.wrong[key]
	return false, holds(c, ok)
}

func (p *passwords) compare(line *line, place string, key [32]byte, password secret.String, hash string) (bool, error) {
	leave, err := line.enter(place)
	if err != nil {
		return false, err
	}
	begun := time.Now()
	right := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password.Reveal())) == nil
	rest := time.Duration(0)
	if line == p.strangers {
		rest = strangersRest * time.Since(begun)
	}
	leave(rest)
	p.mu.Lock()
	defer p.mu.Unlock()
	if right {
		delete(p.wrong, key)
		keep(p.right, key, checked{hash, p.now().Add(verifiedFor)})
	} else {
		delete(p.right, key)
		keep(p.wrong, key, checked{hash, p.now().Add(wrongFor)})
	}
	return right, nil
}

// keep puts one into a map that has a bound; beyond it any one is forgotten.
func keep[K comparable, V any](all map[K]V, key K, value V) {
	if _, ok := all[key]; !ok && len(all) >= maxVerified {
		for other := range all {
			delete(all, other)
			break
		}
	}
	all[key] = value
}

// mayFail says whether somebody may send one more wrong password.
func (p *passwords) mayFail(who guesser) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.failures[who]
	return l == nil || l.TokensAt(p.now()) >= 1
}

// failed counts a wrong password.
func (p *passwords) failed(who guesser) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.failures[who]
	if l == nil {
		l = rate.NewLimiter(rate.Every(time.Minute/failuresAMinute), failuresAMinute)
		keep(p.failures, who, l)
	}
	l.AllowN(p.now(), 1)
}

// line is who waits for a processor to check a password, in order.
type line struct {
	slots      *semaphore.Weighted // how many of the line are at work
	processors *semaphore.Weighted // for all lines

	mu      sync.Mutex
	waiting int
	of      map[string]int // of them, by who they are
}

func newLine(slots int, processors *semaphore.Weighted) *line {
	return &line{slots: semaphore.NewWeighted(int64(slots)), processors: processors, of: map[string]int{}}
}

// enter waits for a processor, which leave gives back; the next of the line comes after a rest. The error is a fault where
// too many wait, or of these too many are the caller's: whoever has none waiting finds a place while fewer than maxChecks
// different ones wait.
func (l *line) enter(who string) (leave func(rest time.Duration), err error) {
	l.mu.Lock()
	full := l.of[who] >= maxChecks-l.waiting
	if !full {
		l.waiting++
		l.of[who]++
	}
	l.mu.Unlock()
	if full {
		return nil, errChecks
	}
	_ = l.slots.Acquire(context.Background(), 1) // which fails only with its context
	_ = l.processors.Acquire(context.Background(), 1)
	return func(rest time.Duration) {
		l.processors.Release(1)
		l.mu.Lock()
		l.waiting--
		if l.of[who]--; l.of[who] == 0 {
			delete(l.of, who)
		}
		l.mu.Unlock()
		time.AfterFunc(rest, func() { l.slots.Release(1) })
	}, nil
}

// AdmitLogin says whose a login is, and counts the request against the login's rate, which is that of a token. The rate is
// given also beside the fault RateLimited.
func (a *Access) AdmitLogin(ctx context.Context, said Credentials, use Use) (Caller, Rate, error) {
	if !a.Loaded() {
		return Caller{}, Rate{}, errNotLoaded
	}
	one, _ := a.accounts.login(said.Name)
	err := a.passwords.check(ctx, said, one.hash, func() bool { return a.wasHere(ctx, one.account, said) })
	if err != nil {
		return Caller{}, Rate{}, err
	}
	a.here(one.account, said)
	return a.admitLogin(said.Name, one, use)
}

func (a *Access) admitLogin(name string, one login, use Use) (Caller, Rate, error) {
	now := a.now()
	caller := Caller{Account: one.account, Subscribed: one.account.Subscription.Active(now), Login: name, Device: one.device}
	return a.count(caller, used{streams.HashToken("login/" + name), use}, now)
}
