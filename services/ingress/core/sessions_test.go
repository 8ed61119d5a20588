package core

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
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

func admitted(t *testing.T, c *Core, name string, password secret.String) Caller {
	t.Helper()
	caller, _, err := c.AdmitLogin(t.Context(), name, password)
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
		if _, _, err := c.AdmitLogin(t.Context(), wrong.name, wrong.password); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v, want a refusal", wrong.name, err)
		}
	}
	account.Suspended = true
	putAccount(t, c, account)
	if _, _, err := c.AdmitLogin(t.Context(), "shop", "correct horse"); !fault.Is(err, fault.Forbidden) {
		t.Errorf("suspended: got %v", err)
	}
	account.Suspended, account.Password, account.Devices = false, hashed(t, "another one"), nil
	putAccount(t, c, account)
	for name, password := range map[string]secret.String{"shop": "correct horse", "Pixel": "battery staple"} {
		if _, _, err := c.AdmitLogin(t.Context(), name, password); !fault.Is(err, fault.Unauthenticated) {
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
	if got := len(c.passwords.checked); got != 1 {
		t.Errorf("got %d checks of a password, want 1", got)
	}
	for range 1000 {
		if _, _, err := c.AdmitLogin(t.Context(), "shop", "wrong"); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("a wrong password: got %v", err)
		}
	}
	if got := len(c.passwords.checked); got != 2 {
		t.Errorf("got %d checks with a wrong password, want 2", got)
	}
	for i := range 1000 {
		guess := secret.String(strings.Repeat("x", 1+i%60) + string(rune('a'+i%20)))
		if _, _, err := c.AdmitLogin(t.Context(), "shop", guess); !fault.Is(err, fault.Unauthenticated) && !fault.Is(err, fault.RateLimited) {
			t.Fatalf("a guess: got %v", err)
		}
	}
	if got := len(c.passwords.checked); got > 2+failuresAMinute {
		t.Errorf("got %d checks of guesses, want at most %d a minute", got, failuresAMinute)
	}
	admitted(t, c, "shop", "correct horse") // who is known comes in all the same
}

// What is remembered of passwords has a bound.
func TestPasswords_Bound(t *testing.T) {
	p := newPasswords(time.Now)
	for i := range maxVerified + 10 {
		p.checked[[32]byte{byte(i), byte(i >> 8), 1}] = checked{}
		p.failed(string(rune(i+1)), true)
	}
	for len(p.checked) < maxVerified {
		p.checked[[32]byte{byte(len(p.checked)), byte(len(p.checked) >> 8), 2}] = checked{}
	}
	if err := p.check(t.Context(), "one more", "password", hashed(t, "password")); err != nil {
		t.Fatal(err)
	}
	if len(p.checked) > maxVerified+10 || len(p.failures) > maxVerified {
		t.Errorf("got %d passwords and %d logins in memory, want at most %d", len(p.checked), len(p.failures), maxVerified)
	}
	p.waiting = maxChecks
	if err := p.check(t.Context(), "one too many", "password", hashed(t, "password")); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v beside %d others, want a refusal", err, maxChecks)
	}
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
	s, _, err := c.AdmitSession(t.Context(), tokens.Access)
	if err != nil || s.Account.ID != account.ID || len(s.Scopes) != 1 || s.Scopes[0] != "messages:send" {
		t.Fatalf("got %+v, %v", s, err)
	}
	// Another ingress knows it too.
	elsewhere := newCoreOn(t, c.bus, 1)
	if _, _, err := elsewhere.AdmitSession(t.Context(), tokens.Access); err != nil {
		t.Errorf("at another ingress: %v", err)
	}
	renewing, _, err := c.AdmitSession(t.Context(), tokens.Renew)
	if err != nil || len(renewing.Scopes) != 1 || renewing.Scopes[0] != renewScope {
		t.Fatalf("the renew token: got %+v, %v", renewing, err)
	}
	again, err := c.RenewSession(t.Context(), renewing, tokens.Renew)
	if err != nil {
		t.Fatal(err)
	}
	if s, _, err := c.AdmitSession(t.Context(), again.Access); err != nil || s.Scopes[0] != "messages:send" {
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
	if _, _, err := c.AdmitSession(t.Context(), again.Access); err != nil {
		t.Errorf("ended by another account: %v", err)
	}
	if err := c.EndSession(t.Context(), login, again.ID); err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]secret.String{"access": again.Access, "renew": again.Renew} {
		if _, _, err := c.AdmitSession(t.Context(), token); !fault.Is(err, fault.Unauthenticated) {
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
	if _, _, err := c.AdmitSession(t.Context(), fresh.Access); !fault.Is(err, fault.Unauthenticated) {
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
	if _, _, err := c.AdmitSession(t.Context(), sign(jwt.SigningMethodHS256, key, nothing)); err != nil {
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
		if _, _, err := c.AdmitSession(t.Context(), token); !fault.Is(err, fault.Unauthenticated) {
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
