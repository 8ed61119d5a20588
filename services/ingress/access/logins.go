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

	"github.com/trunkline-sms/trunkline/pkg/bounded"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// Limit: a right password is not checked again for 10 min, or until it is changed. Beyond it: it is checked.
	// Used up by: a login that is not used. Hurts: only that login: its next request waits for a check.
	// Test: TestAdmitLogin.
	verifiedFor = 10 * time.Minute
	wrongFor    = time.Minute // the same of a wrong one
	// Limit: 10,000 right passwords are remembered, as many wrong ones, and as many guessers. Beyond it: any one is
	// forgotten: a password costs a check at its next request, and a guesser who is not counted waits with all others.
	// Used up by: strangers, as to wrong passwords and guessers; that many logins, as to right ones.
	// Hurts: only the login whose password is forgotten: its next request waits for a check. Test: TestPasswords_Bound.
	maxVerified = 10_000
	// Limit: a network may send 10 wrong passwords for a login at once, and as many a minute. Beyond it: 429
	// `too_many_failures` with Retry-After; where the login came in before, the right password still works.
	// Used up by: somebody who guesses. Hurts: only that login, from that network.
	// Test: TestAdmitLogin_GuessesLockNobodyOut.
	failuresAMinute = 10
	// maxLogin is the most bytes of a login.
	maxLogin = 4 * 64
	// Limit: 64 passwords of strangers wait to be checked, of a network as many as it leaves to others; and apart from
	// them 64 of callers who came in from the same network before, of a network and login as many as it leaves to
	// others. Beyond it: 503 `busy` with Retry-After.
	// Used up by: strangers who guess, from many networks. Hurts: other strangers, and logins from new networks.
	// Test: TestPasswords_Line.
	maxChecks = 64
	// Limit: passwords of strangers are checked by one processor in four, which then is left to others for 3 times as
	// long as the check took. Beyond it: they wait in the line above.
	// Used up by: strangers who guess. Hurts: other strangers, and logins from new networks. Test: TestPasswords_Line.
	strangersRest = 3
)

var (
	errLogin    = fault.New(fault.Unauthenticated, "invalid_login", "Invalid credentials")
	errFailures = &fault.Error{Kind: fault.RateLimited, Code: "too_many_failures", Text: "Too many wrong passwords for this login", RetryAfter: time.Minute / failuresAMinute}
	errChecks   = &fault.Error{Kind: fault.Unavailable, Code: "busy", Text: "Too many passwords are being checked, try again", RetryAfter: retrySoon}
)

// Credentials are what a caller logs in with.
type Credentials struct {
	Name     string
	Password secret.String
	From     netip.Prefix // the callers' network, as httpx.Proxies gives it; none: it is not known
}

// login is what the accounts say of a login.
type login struct {
	account *streams.Account
	hash    string           // bcrypt
	device  streams.DeviceID // the phone that it belongs to; zero: it is the account's
}

// passwords checks passwords against their hashes, and remembers the outcome: a check takes a processor for a twentieth of
// a second.
type passwords struct {
	now       func() time.Time
	key       [32]byte // of this process, so that no plain hash of a password is kept
	strangers *line
	known     *line // logins that came from the same network before: they do not wait behind strangers
	flight    singleflight.Group

	mu       sync.Mutex
	right    map[[32]byte]checked
	wrong    map[[32]byte]checked
	failures map[guesser]*rate.Limiter
}

// guesser is somebody who may be guessing a password. If failures were counted by login alone, guessing would lock its
// owner out.
type guesser struct {
	from  netip.Prefix
	login string
}

// checked says which hash a password was checked against, and until when the outcome counts.
type checked struct {
	hash  string
	until time.Time
}

func newPasswords(now func() time.Time) *passwords {
	// A check keeps its processor until the runtime interrupts it, 10 ms later. On all of them at once, each step of every
	// other request would wait for that.
	//
	// Limit: passwords are checked by one processor in 2, at least one. Beyond it: they wait in the lines above.
	// Used up by: strangers who guess. Hurts: a login that is known waits for one of their checks at most.
	// Test: TestPasswords_LeaveProcessors.
	half := max(runtime.GOMAXPROCS(0)/2, 1)
	processors := semaphore.NewWeighted(int64(half))
	p := &passwords{
		now: now, strangers: newLine(max(runtime.GOMAXPROCS(0)/4, 1), processors), known: newLine(half, processors),
		right: map[[32]byte]checked{}, wrong: map[[32]byte]checked{}, failures: map[guesser]*rate.Limiter{},
	}
	_, _ = rand.Read(p.key[:])
	return p
}

// nobody is the hash that passwords of unknown logins are checked against, so that those checks take as long.
var nobody = sync.OnceValue(func() string {
	hash, _ := bcrypt.GenerateFromPassword([]byte("nobody"), bcrypt.DefaultCost)
	return string(hash)
})

// check is a fault unless the password has the login's hash; hash is empty if there is no such login. isKnown says whether
// the login came with the right password from this network before. It may cost a read, so it is called only if the
// password has to be compared.
func (p *passwords) check(ctx context.Context, c Credentials, hash string, isKnown func() bool) error {
	known := hash != ""
	if !known {
		hash = nobody()
	}
	if len(c.Name) > maxLogin {
		return errLogin // there is no such login, and its name is too long to be remembered
	}
	key := p.keyOf(c.Name, c.Password)
	if right, ok := p.remembered(key, hash); ok {
		return verdict(right && known)
	}
	who, line, flight := guesser{c.From, c.Name}, p.strangers, string(key[:])
	waiter := c.From.String()
	switch {
	case known && isKnown():
		line, flight, waiter = p.known, flight+"known", waiter+" "+c.Name
	case !p.mayFail(who):
		return errFailures
	}
	checking := p.flight.DoChan(flight, func() (any, error) { return p.compare(line, waiter, key, c.Password, hash) })
	var got singleflight.Result
	select {
	case got = <-checking:
	case <-ctx.Done(): // the check goes on, for others that wait for it
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

func (p *passwords) compare(line *line, waiter string, key [32]byte, password secret.String, hash string) (bool, error) {
	leave, err := line.enter(waiter)
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
	p.remember(key, hash, right)
	return right, nil
}

// remember notes whether a password is right.
func (p *passwords) remember(key [32]byte, hash string, right bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if right {
		delete(p.wrong, key)
		bounded.Put(p.right, maxVerified, key, checked{hash, p.now().Add(verifiedFor)})
	} else {
		delete(p.right, key)
		bounded.Put(p.wrong, maxVerified, key, checked{hash, p.now().Add(wrongFor)})
	}
}

// mayFail says whether a guesser may send one more wrong password.
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
		bounded.Put(p.failures, maxVerified, who, l)
	}
	l.AllowN(p.now(), 1)
}

// line is the order in which passwords get a processor to be checked.
type line struct {
	slots      *semaphore.Weighted // for checks of this line at the same time
	processors *semaphore.Weighted // for all lines

	mu      sync.Mutex
	waiting int
	of      map[string]int // of them, by who they are
}

func newLine(slots int, processors *semaphore.Weighted) *line {
	return &line{slots: semaphore.NewWeighted(int64(slots)), processors: processors, of: map[string]int{}}
}

// enter waits for a processor, which leave gives back; the next one in the line follows after a rest. It is a fault if the
// caller has as many passwords waiting as it leaves room for others. A caller that has none waiting is let in as long as
// fewer than maxChecks wait.
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

// AdmitLogin finds the caller of a login, and counts the request against the login's rate, which is that of a token. The
// rate is given beside the fault RateLimited too.
func (a *Access) AdmitLogin(ctx context.Context, c Credentials, use Use) (Caller, Rate, error) {
	if !a.Loaded() {
		return Caller{}, Rate{}, errNotLoaded
	}
	one, _ := a.accounts.login(c.Name)
	err := a.passwords.check(ctx, c, one.hash, func() bool { return a.networks.known(ctx, one.account, c) })
	if err != nil {
		return Caller{}, Rate{}, err
	}
	a.networks.note(one.account, c)
	return a.admitLogin(c.Name, one, use)
}

func (a *Access) admitLogin(name string, one login, use Use) (Caller, Rate, error) {
	now := a.now()
	caller := Caller{Account: one.account, Subscribed: one.account.Subscription.Active(now), Login: name, Device: one.device}
	return a.count(caller, used{streams.HashToken("login/" + name), use}, now)
}
