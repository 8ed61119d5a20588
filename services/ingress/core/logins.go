package core

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
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
	verifiedFor = 10 * time.Minute
	wrongFor    = time.Minute
	// maxVerified bounds the passwords in memory that were checked, and the logins whose failures are counted.
	maxVerified = 10_000
	// failuresAMinute is how many wrong passwords a login may have, at once and a minute.
	failuresAMinute = 10
	// maxLogin is the most bytes of a login.
	maxLogin = 4 * 64
	// maxChecks bounds the passwords that wait to be checked.
	maxChecks = 64
)

var (
	errLogin    = fault.New(fault.Unauthenticated, "invalid_login", "Invalid credentials")
	errFailures = &fault.Error{Kind: fault.RateLimited, Code: "too_many_failures", Text: "Too many wrong passwords for this login", RetryAfter: time.Minute / failuresAMinute}
	errChecks   = &fault.Error{Kind: fault.Unavailable, Code: "busy", Text: "Too many passwords are being checked, try again", RetryAfter: retrySoon}
)

// login is who a login belongs to.
type login struct {
	account *streams.Account
	hash    string           // bcrypt
	device  streams.DeviceID // whose own login it is; zero: the account's
}

// passwords checks passwords against their hashes, each once: that takes a processor for a twentieth of a second.
type passwords struct {
	now    func() time.Time
	key    [32]byte // of this process: what is remembered is no password's plain hash
	slots  *semaphore.Weighted
	flight singleflight.Group

	mu       sync.Mutex
	waiting  int
	checked  map[[32]byte]checked
	failures map[string]*rate.Limiter // by login
}

// checked is what a check of a login with a password gave.
type checked struct {
	hash  string // that it was checked against
	right bool
	until time.Time
}

func newPasswords(now func() time.Time) *passwords {
	p := &passwords{
		now: now, slots: semaphore.NewWeighted(int64(max(runtime.GOMAXPROCS(0)/2, 1))),
		checked: map[[32]byte]checked{}, failures: map[string]*rate.Limiter{},
	}
	_, _ = rand.Read(p.key[:])
	return p
}

// nobody is what the password of a login is checked against that nobody has, so that it takes as long.
var nobody = sync.OnceValue(func() string {
	hash, _ := bcrypt.GenerateFromPassword([]byte("nobody"), bcrypt.DefaultCost)
	return string(hash)
})

// check says whether a login's password has that hash.
func (p *passwords) check(ctx context.Context, name string, password secret.String, hash string) error {
	known := hash != ""
	if !known {
		hash = nobody()
	}
	if len(name) > maxLogin {
		return errLogin // nobody has it, and it is not to be kept
	}
	key := p.keyOf(name, password)
	if right, ok := p.remembered(key, hash); ok {
		return verdict(right && known)
	}
	if !p.failed(name, false) {
		return errFailures
	}
	right, err, _ := p.flight.Do(string(key[:]), func() (any, error) { return p.compare(ctx, key, password, hash) })
	if err != nil {
		return err
	}
	if ok := right.(bool) && known; !ok {
		p.failed(name, true)
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
	c, ok := p.checked[key]
	return c.right, ok && c.hash == hash && p.now().Before(c.until)
}

func (p *passwords) compare(ctx context.Context, key [32]byte, password secret.String, hash string) (bool, error) {
	p.mu.Lock()
	full := p.waiting >= maxChecks
	if !full {
		p.waiting++
	}
	p.mu.Unlock()
	if full {
		return false, errChecks
	}
	defer func() {
		p.mu.Lock()
		p.waiting--
		p.mu.Unlock()
	}()
	// Others may wait for this check whose callers have not hung up.
	if err := p.slots.Acquire(context.WithoutCancel(ctx), 1); err != nil {
		return false, errChecks.With(err)
	}
	right := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password.Reveal())) == nil
	p.slots.Release(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.checked) >= maxVerified {
		for other := range p.checked { // any one
			delete(p.checked, other)
			break
		}
	}
	lasts := wrongFor
	if right {
		lasts = verifiedFor
	}
	p.checked[key] = checked{hash: hash, right: right, until: p.now().Add(lasts)}
	return right, nil
}

// failed says whether a login may have one more wrong password, and counts one.
func (p *passwords) failed(name string, count bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.failures[name]
	if l == nil {
		if !count {
			return true
		}
		if len(p.failures) >= maxVerified {
			for other := range p.failures { // any one
				delete(p.failures, other)
				break
			}
		}
		l = rate.NewLimiter(rate.Every(time.Minute/failuresAMinute), failuresAMinute)
		p.failures[name] = l
	}
	if count {
		return l.AllowN(p.now(), 1)
	}
	return l.TokensAt(p.now()) >= 1
}

// AdmitLogin tells whose a login is, and counts the request against the login's rate, which is that of a token. The
// rate stands also beside the fault RateLimited.
func (c *Core) AdmitLogin(ctx context.Context, name string, password secret.String) (Caller, Rate, error) {
	if !c.Loaded() {
		return Caller{}, Rate{}, c.refuse(errNotLoaded)
	}
	one, _ := c.accounts.login(name)
	if err := c.passwords.check(ctx, name, password, one.hash); err != nil {
		return Caller{}, Rate{}, c.refuse(err)
	}
	return c.admitLogin(name, one)
}

func (c *Core) admitLogin(name string, one login) (Caller, Rate, error) {
	if one.account.Suspended {
		return Caller{}, Rate{}, c.refuse(errSuspended)
	}
	now := c.now()
	stands, err := c.rates.take(streams.HashToken("login/"+name), one.account.Plan.Rate, now)
	if err != nil {
		return Caller{}, stands, c.refuse(err)
	}
	return Caller{
		Account: one.account, Subscribed: one.account.Subscription.Active(now), Login: name, Device: one.device,
	}, stands, nil
}
