package core

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/crypto/bcrypt"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/streams"
)

// putAccount stores an account, and returns once c acts on it.
func putAccount(t testing.TB, c *Core, account streams.Account) {
	t.Helper()
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.AccountsBucket)
	if err != nil {
		t.Fatal(err)
	}
	value, err := json.Marshal(account)
	if err != nil {
		t.Fatal(err)
	}
	revision, err := bucket.Put(t.Context(), streams.AccountKey(account.ID), value)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.accounts.wait(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
}

func hashed(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

// shopLogin is an account with a login, and a phone with one of its own.
func shopLogin(t testing.TB) streams.Account {
	id := streams.AccountIDOf("shop")
	return streams.Account{
		ID: id, Name: "shop", Login: "shop", Password: hashed(t, "correct horse"),
		Devices: []streams.Login{{Device: streams.DeviceIDOf(id, "Pixel"), Name: "Pixel", Password: hashed(t, "battery staple")}},
	}
}

// home is where the owner of a login is.
var home = netip.MustParsePrefix("192.0.2.7/32")

func admitted(t *testing.T, c *Core, name string, password secret.String) Caller {
	t.Helper()
	caller, _, err := c.AdmitLogin(t.Context(), Credentials{Name: name, Password: password, From: home}, Posting)
	if err != nil {
		t.Fatal(err)
	}
	return caller
}

func TestCore_AdmitLogin(t *testing.T) {
	c := newCore(t)
	account := shopLogin(t)
	putAccount(t, c, account)
	if got := admitted(t, c, "shop", "correct horse"); got.Account.ID != account.ID || got.Device != 0 || got.Login != "shop" || !got.Subscribed {
		t.Errorf("got %+v", got)
	}
	if got := admitted(t, c, "Pixel", "battery staple"); got.Account.ID != account.ID || got.Device != streams.DeviceIDOf(account.ID, "Pixel") {
		t.Errorf("a phone's own: got %+v", got)
	}
	for _, wrong := range []struct {
		name     string
		password secret.String
	}{{"shop", "battery staple"}, {"Pixel", "correct horse"}, {"nobody", "correct horse"}, {"nobody", "nobody"}, {"", ""}, {"shop", ""}} {
		if _, _, err := c.AdmitLogin(t.Context(), Credentials{Name: wrong.name, Password: wrong.password, From: home}, Posting); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v, want a refusal", wrong.name, err)
		}
	}
	account.Suspended = true
	putAccount(t, c, account)
	if _, _, err := c.AdmitLogin(t.Context(), Credentials{Name: "shop", Password: "correct horse", From: home}, Posting); !fault.Is(err, fault.Forbidden) {
		t.Errorf("suspended: got %v", err)
	}
	account.Suspended, account.Password, account.Devices = false, hashed(t, "another one"), nil
	putAccount(t, c, account)
	for name, password := range map[string]secret.String{"shop": "correct horse", "Pixel": "battery staple"} {
		if _, _, err := c.AdmitLogin(t.Context(), Credentials{Name: name, Password: password, From: home}, Posting); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s, which was changed: got %v, want a refusal", name, err)
		}
	}
	admitted(t, c, "shop", "another one")
}

// A password costs a processor for a while, so it is checked once for many requests, and wrong ones not without end.
func TestCore_AdmitLogin_ChecksOnce(t *testing.T) {
	c := newCore(t)
	putAccount(t, c, shopLogin(t))
	for range 1000 {
		admitted(t, c, "shop", "correct horse")
	}
	if got := len(c.passwords.right) + len(c.passwords.wrong); got != 1 {
		t.Errorf("got %d checks of a password, want 1", got)
	}
	for range 1000 {
		if _, _, err := c.AdmitLogin(t.Context(), Credentials{Name: "shop", Password: "wrong", From: home}, Posting); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("a wrong password: got %v", err)
		}
	}
	if got := len(c.passwords.right) + len(c.passwords.wrong); got != 2 {
		t.Errorf("got %d checks with a wrong password, want 2", got)
	}
	for i := range 1000 {
		guess := secret.String(strings.Repeat("x", 1+i%60) + string(rune('a'+i%20)))
		if _, _, err := c.AdmitLogin(t.Context(), Credentials{"shop", guess, network(1)}, Posting); !fault.Is(err, fault.Unauthenticated) && !fault.Is(err, fault.RateLimited) {
			t.Fatalf("a guess: got %v", err)
		}
	}
	if got := len(c.passwords.wrong); got > 1+failuresAMinute {
		t.Errorf("got %d checks of guesses, want at most %d a minute", got, failuresAMinute)
	}
}

// network is one of many networks.
func network(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 32)
}

// Who guesses a password locks nobody out who has it: neither from where the owner is known, also after a restart, nor
// from another network; and who guesses goes on to be refused.
func TestCore_AdmitLogin_GuessesLockNobodyOut(t *testing.T) {
	c := newCore(t)
	putAccount(t, c, shopLogin(t))
	admitted(t, c, "shop", "correct horse")
	try := func(c *Core, password secret.String, from netip.Prefix) error {
		_, _, err := c.AdmitLogin(t.Context(), Credentials{"shop", password, from}, Posting)
		return err
	}
	guess := func(c *Core, from netip.Prefix) (refused int) {
		for i := range 2 * failuresAMinute {
			if fault.Is(try(c, secret.String(fmt.Sprint("guess", i, from)), from), fault.RateLimited) {
				refused++
			}
		}
		return refused
	}
	for i := range 20 {
		if refused := guess(c, network(i)); refused < failuresAMinute-1 {
			t.Errorf("a stranger: got %d guesses refused, want %d", refused, failuresAMinute)
		}
	}
	clear(c.passwords.right) // the ten minutes are over
	for what, from := range map[string]netip.Prefix{"where he is known": home, "elsewhere": network(1000)} {
		if err := try(c, "correct horse", from); err != nil {
			t.Errorf("the owner, %s: got %v", what, err)
		}
		clear(c.passwords.right)
	}
	// One in the owner's own network may guess there, and does not lock him out either.
	guess(c, home)
	if err := try(c, "correct horse", home); err != nil {
		t.Errorf("the owner, beside one who guesses in his network: got %v", err)
	}
	c.storePlaces(t.Context())
	again := newCoreOn(t, c.bus, 1)
	guess(again, home)
	if err := try(again, "correct horse", home); err != nil {
		t.Errorf("the owner, at another ingress: got %v", err)
	}
	if refused := guess(again, network(2000)); refused < failuresAMinute-1 {
		t.Errorf("a stranger at another ingress: got %d guesses refused, want %d", refused, failuresAMinute)
	}
}

// A place is known for thirty days, also if the clock was ahead once; what is kept of an account has a bound.
func TestCore_Places(t *testing.T) {
	c := newCore(t)
	a, begun := shopLogin(t), time.Now()
	now := begun
	c.now = func() time.Time { return now }
	owner := Credentials{Name: "shop", From: home}
	c.here(&a, owner)
	for days, want := range map[int]bool{0: true, 30: true, 31: false} {
		if now = begun.Add(time.Duration(days) * day); c.wasHere(t.Context(), &a, owner) != want {
			t.Errorf("after %d days: got %t, want %t", days, !want, want)
		}
	}
	for what, other := range map[string]Credentials{
		"another network": {Name: "shop", From: network(1)}, "another login": {Name: "Pixel", From: home}, "nowhere": {Name: "shop"},
	} {
		if now = begun; c.wasHere(t.Context(), &a, other) {
			t.Errorf("%s is known", what)
		}
	}
	now = begun.Add(400 * day)
	c.here(&a, owner)
	c.storePlaces(t.Context())
	now = begun
	again := newCoreOn(t, c.bus, 1)
	at := now
	again.now = func() time.Time { return at }
	if !again.wasHere(t.Context(), &a, owner) {
		t.Error("what was noted while the clock was ahead is lost")
	}
	again.storePlaces(t.Context())
	if at = now.Add(31 * day); again.wasHere(t.Context(), &a, owner) {
		t.Error("what was noted while the clock was ahead is known for more than thirty days")
	}
	for i := range 2 * maxPlaces {
		c.here(&a, Credentials{Name: "shop", From: network(i)})
	}
	c.storePlaces(t.Context())
	record, _, err := c.readPlaces(t.Context(), a.ID)
	if err != nil || len(record) != maxPlaces || len(c.places.accounts[a.ID].days) != maxPlaces {
		t.Errorf("got %d places stored and %d in memory, %v, want %d", len(record), len(c.places.accounts[a.ID].days), err, maxPlaces)
	}
}

// What is remembered of passwords has a bound, and wrong ones do not push out right ones.
func TestPasswords_Bound(t *testing.T) {
	p := newPasswords(time.Now)
	for i := range maxVerified + 10 {
		keep(p.right, [32]byte{byte(i), byte(i >> 8), 1}, checked{})
		keep(p.wrong, [32]byte{byte(i), byte(i >> 8), 1}, checked{})
		p.failed(guesser{network(i), "shop"})
	}
	if len(p.right) != maxVerified || len(p.wrong) != maxVerified || len(p.failures) != maxVerified {
		t.Errorf("got %d right and %d wrong passwords and %d guessers in memory, want %d each", len(p.right), len(p.wrong), len(p.failures), maxVerified)
	}
}

// Of the places of a line nobody has more than he leaves to others, and strangers hold up nobody who is known.
func TestPasswords_Line(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPasswords(time.Now)
		hash := hashed(t, "password")
		busy := max(runtime.GOMAXPROCS(0)/4, 1)
		if !p.strangers.slots.TryAcquire(int64(busy)) { // a check that goes on
			t.Fatal("no processor is free")
		}
		var crowd sync.WaitGroup
		answers := map[netip.Prefix]int{}
		var mu sync.Mutex
		try := func(from netip.Prefix, n int, known bool) error {
			return p.check(t.Context(), Credentials{"shop", secret.String(fmt.Sprint("guess", from, n)), from}, hash, func() bool { return known })
		}
		// As many as it has places come from one network, then from another, and then one each.
		for i := range 4 * maxChecks {
			from := network(max(0, i-2*maxChecks+1))
			if i >= maxChecks && i < 2*maxChecks {
				from = network(10_000)
			}
			crowd.Go(func() {
				if err := try(from, i, false); fault.Is(err, fault.Unauthenticated) {
					mu.Lock()
					answers[from]++
					mu.Unlock()
				} else if !fault.Is(err, fault.Unavailable) {
					t.Errorf("got %v", err)
				}
			})
			synctest.Wait()
		}
		if err := try(home, 0, true); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("who is known, beside a crowd of strangers: got %v, want his password checked", err)
		}
		p.strangers.slots.Release(int64(busy))
		crowd.Wait()
		if a, b, all := answers[network(0)], answers[network(10_000)], len(answers); a != maxChecks/2 || b != maxChecks/4 || all < 10 {
			t.Errorf("got %d checked of the first, %d of the second, and %d networks served, want %d, %d and more than 10", a, b, all, maxChecks/2, maxChecks/4)
		}
	})
}

func TestCore_Sessions(t *testing.T) {
	c := newCore(t)
	account := shopLogin(t)
	putAccount(t, c, account)
	login := admitted(t, c, "shop", "correct horse")
	tokens, err := c.BeginSession(t.Context(), login, time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(tokens.Expires); left > time.Hour || left < time.Hour-time.Minute {
		t.Errorf("got a session of %v, want an hour", left)
	}
	s, _, err := c.AdmitSession(t.Context(), tokens.Access, Posting)
	if err != nil || s.Account.ID != account.ID || len(s.Scopes) != 1 || s.Scopes[0] != "messages:send" {
		t.Fatalf("got %+v, %v", s, err)
	}
	// Another ingress knows it too.
	elsewhere := newCoreOn(t, c.bus, 1)
	if _, _, err := elsewhere.AdmitSession(t.Context(), tokens.Access, Posting); err != nil {
		t.Errorf("at another ingress: %v", err)
	}
	renewing, _, err := c.AdmitSession(t.Context(), tokens.Renew, Posting)
	if err != nil || len(renewing.Scopes) != 1 || renewing.Scopes[0] != renewScope {
		t.Fatalf("the renew token: got %+v, %v", renewing, err)
	}
	again, err := c.RenewSession(t.Context(), renewing, tokens.Renew)
	if err != nil {
		t.Fatal(err)
	}
	if s, _, err := c.AdmitSession(t.Context(), again.Access, Posting); err != nil || s.Scopes[0] != "messages:send" {
		t.Errorf("renewed: got %+v, %v", s, err)
	}
	for what, with := range map[string]secret.String{"again": tokens.Renew, "an access token": tokens.Access} {
		if _, err := c.RenewSession(t.Context(), renewing, with); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("renewed with %s: got %v, want a refusal", what, err)
		}
	}
	// Another account cannot end it.
	if err := c.EndSession(t.Context(), Caller{Account: &streams.Account{ID: 7}}, again.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.AdmitSession(t.Context(), again.Access, Posting); err != nil {
		t.Errorf("ended by another account: %v", err)
	}
	if err := c.EndSession(t.Context(), login, again.ID); err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]secret.String{"access": again.Access, "renew": again.Renew} {
		if _, _, err := c.AdmitSession(t.Context(), token, Posting); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s token of a session that was ended: got %v", what, err)
		}
	}
	for _, unknown := range []string{"", "x", "unknown", strings.Repeat("a", 21), "a.b.>"} {
		if err := c.EndSession(t.Context(), login, unknown); err != nil {
			t.Errorf("end %q: %v", unknown, err)
		}
	}
	// With the password go the sessions.
	fresh, err := c.BeginSession(t.Context(), login, 0, []string{"all:any"})
	if err != nil {
		t.Fatal(err)
	}
	account.Password = hashed(t, "another one")
	putAccount(t, c, account)
	if _, _, err := c.AdmitSession(t.Context(), fresh.Access, Posting); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("with a new password: got %v", err)
	}
}

// Tokens that others made, or that say something else than they were signed for, are refused.
func TestCore_Sessions_Forged(t *testing.T) {
	c := newCore(t)
	account := shopLogin(t)
	putAccount(t, c, account)
	login := admitted(t, c, "shop", "correct horse")
	if _, err := c.BeginSession(t.Context(), login, 0, []string{"all:any"}); err != nil {
		t.Fatal(err)
	}
	key, err := c.signingKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	whole := func() claims {
		return claims{
			RegisteredClaims: jwt.RegisteredClaims{
				ID: newSessionID(key, account.ID), Issuer: issuer, Subject: account.ID.String(),
				IssuedAt: jwt.NewNumericDate(time.Now()), ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour)),
			},
			Login: "shop", Password: passwordMark(key, account.Password), Scopes: []string{"all:any"},
		}
	}
	sign := func(method jwt.SigningMethod, with any, change func(*claims)) secret.String {
		said := whole()
		change(&said)
		signed, err := jwt.NewWithClaims(method, said).SignedString(with)
		if err != nil {
			t.Fatal(err)
		}
		return secret.String(signed)
	}
	nothing := func(*claims) {}
	if _, _, err := c.AdmitSession(t.Context(), sign(jwt.SigningMethodHS256, key, nothing), Posting); err != nil {
		t.Fatalf("a whole one: %v", err)
	}
	for what, token := range map[string]secret.String{
		"none":            sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nothing),
		"HS512":           sign(jwt.SigningMethodHS512, key, nothing),
		"another key":     sign(jwt.SigningMethodHS256, []byte(strings.Repeat("k", keyBytes)), nothing),
		"another issuer":  sign(jwt.SigningMethodHS256, key, func(c *claims) { c.Issuer = "sms-gate.app" }),
		"expired":         sign(jwt.SigningMethodHS256, key, func(c *claims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-time.Minute)) }),
		"without an end":  sign(jwt.SigningMethodHS256, key, func(c *claims) { c.ExpiresAt = nil }),
		"another account": sign(jwt.SigningMethodHS256, key, func(c *claims) { c.Subject = streams.AccountIDOf("other").String() }),
		"another login":   sign(jwt.SigningMethodHS256, key, func(c *claims) { c.Login = "nobody" }),
		"a phone's login": sign(jwt.SigningMethodHS256, key, func(c *claims) { c.Login = "Pixel" }),
		"no password":     sign(jwt.SigningMethodHS256, key, func(c *claims) { c.Password = "" }),
		"nothing":         "",
		"no token":        "a.b.c",
	} {
		if _, _, err := c.AdmitSession(t.Context(), token, Posting); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v, want a refusal", what, err)
		}
	}
}

func TestCore_BeginSession_Refuses(t *testing.T) {
	c := newCore(t)
	putAccount(t, c, shopLogin(t))
	login, phone := admitted(t, c, "shop", "correct horse"), admitted(t, c, "Pixel", "battery staple")
	for what, test := range map[string]struct {
		caller Caller
		scopes []string
		want   fault.Kind
	}{
		"no scope":        {login, nil, fault.Invalid},
		"an empty one":    {login, []string{""}, fault.Invalid},
		"a long one":      {login, []string{strings.Repeat("x", maxScope+1)}, fault.Invalid},
		"too many":        {login, make([]string, maxScopes+1), fault.Invalid},
		"a phone's login": {phone, []string{"all:any"}, fault.Forbidden},
		"a token":         {Caller{Account: login.Account}, []string{"all:any"}, fault.Forbidden},
	} {
		if _, err := c.BeginSession(t.Context(), test.caller, 0, test.scopes); !fault.Is(err, test.want) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	tokens, err := c.BeginSession(t.Context(), login, 365*24*time.Hour, []string{"all:any"})
	if err != nil || time.Until(tokens.Expires) > MaxAccess {
		t.Errorf("a year: got %v until %v, want a day", err, tokens.Expires)
	}
}

// ended is what the sessions bucket says of a session that was ended.
type ended struct {
	jetstream.KeyValueEntry
	key string
	at  time.Time
}

func (e ended) Key() string                     { return e.key }
func (e ended) Created() time.Time              { return e.at }
func (e ended) Operation() jetstream.KeyValueOp { return jetstream.KeyValuePut }

// Ended sessions are forgotten when the bucket forgets them, and goes by the same clock.
func TestSessions_Forgotten(t *testing.T) {
	s := newSessions()
	account := streams.AccountIDOf("shop")
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const days = 100
	for day := range days {
		for n := range 10 {
			s.note(ended{key: streams.RevokedKey(account, fmt.Sprint(day, "-", n)), at: began.Add(time.Duration(day) * 24 * time.Hour)})
		}
		if got, most := len(s.ended), 10*(2+int(streams.SessionTTL/(24*time.Hour))); got > most {
			t.Fatalf("%d are known after %d days, want at most %d", got, day, most)
		}
	}
	// The youngest that can still be used are known, the oldest are not.
	if !s.hasEnded(account, "99-0") || !s.hasEnded(account, "70-9") || s.hasEnded(account, "67-0") || s.hasEnded(account, "0-0") {
		t.Errorf("%d are known", len(s.ended))
	}
}

// An account's marks of sessions have a bound, so that none keeps another from ending a session that leaked.
func TestCore_Sessions_TooMany(t *testing.T) {
	c := newCore(t)
	shop := shopLogin(t)
	putAccount(t, c, shop)
	clinic := shop
	clinic.ID, clinic.Name, clinic.Login, clinic.Devices = streams.AccountIDOf("clinic"), "clinic", "clinic", nil
	putAccount(t, c, clinic)
	now := time.Now()
	mark := func(n int, kind func(streams.AccountID, string) string, at time.Time) {
		for i := range n {
			c.sessions.note(ended{key: kind(shop.ID, fmt.Sprint(i, "-", at.UnixNano())), at: at})
		}
	}
	// try renews and ends a session of an account.
	try := func(what, login string, wantRenewed, wantEnded error) {
		t.Helper()
		caller := admitted(t, c, login, "correct horse")
		tokens, err := c.BeginSession(t.Context(), caller, 0, []string{"all:any"})
		if err != nil {
			t.Fatal(err)
		}
		renewing, _, err := c.AdmitSession(t.Context(), tokens.Renew, Posting)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.RenewSession(t.Context(), renewing, tokens.Renew); !errors.Is(err, wantRenewed) {
			t.Errorf("%s: renew: got %v, want %v", what, err, wantRenewed)
		}
		if err := c.EndSession(t.Context(), caller, tokens.ID); !errors.Is(err, wantEnded) {
			t.Errorf("%s: end: got %v, want %v", what, err, wantEnded)
		}
		_, _, err = c.AdmitSession(t.Context(), tokens.Access, Posting)
		if is := fault.Is(err, fault.Unauthenticated); is != (wantEnded == nil) {
			t.Errorf("%s: after its end: got %v", what, err)
		}
	}
	mark(maxMarks, streams.RevokedKey, now.Add(-streams.SessionTTL-48*time.Hour)) // they have run out
	mark(maxMarks/2-1, streams.RenewedKey, now.Add(-24*time.Hour))
	if got := len(c.sessions.ended); got > maxMarks {
		t.Errorf("got %d sessions that ended, want none of those that were renewed", got)
	}
	try("below half", "shop", nil, nil)
	mark(1, streams.RenewedKey, now)
	try("half", "shop", errMarks, nil)
	mark(maxMarks/2, streams.RevokedKey, now)
	try("all", "shop", errMarks, errMarks)
	try("all of another's", "clinic", nil, nil)
	// Another ingress counts what was stored.
	elsewhere := newCoreOn(t, c.bus, 1)
	elsewhere.sessions.mu.Lock()
	defer elsewhere.sessions.mu.Unlock()
	if got := elsewhere.sessions.marks.of(shop.ID, now); got != 4 {
		t.Errorf("got %d marks at another ingress, want 4", got)
	}
}
