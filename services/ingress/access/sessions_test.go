package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

func TestSessions(t *testing.T) {
	c := newAccess(t)
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
	elsewhere := newAccessOn(t, c.bus)
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
func TestSessions_Forged(t *testing.T) {
	c := newAccess(t)
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
	whole := func() sessionClaims {
		return sessionClaims{
			RegisteredClaims: jwt.RegisteredClaims{
				ID: newSessionID(key, account.ID), Issuer: issuer, Subject: account.ID.String(),
				IssuedAt: jwt.NewNumericDate(time.Now()), ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour)),
			},
			Login: "shop", Password: passwordMark(key, account.Password), Scopes: []string{"all:any"},
		}
	}
	sign := func(method jwt.SigningMethod, with any, change func(*sessionClaims)) secret.String {
		said := whole()
		change(&said)
		signed, err := jwt.NewWithClaims(method, said).SignedString(with)
		if err != nil {
			t.Fatal(err)
		}
		return secret.String(signed)
	}
	nothing := func(*sessionClaims) {}
	if _, _, err := c.AdmitSession(t.Context(), sign(jwt.SigningMethodHS256, key, nothing), Posting); err != nil {
		t.Fatalf("a whole one: %v", err)
	}
	for what, token := range map[string]secret.String{
		"none":            sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, nothing),
		"HS512":           sign(jwt.SigningMethodHS512, key, nothing),
		"another key":     sign(jwt.SigningMethodHS256, []byte(strings.Repeat("k", keyBytes)), nothing),
		"another issuer":  sign(jwt.SigningMethodHS256, key, func(c *sessionClaims) { c.Issuer = "sms-gate.app" }),
		"expired":         sign(jwt.SigningMethodHS256, key, func(c *sessionClaims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-time.Minute)) }),
		"without an end":  sign(jwt.SigningMethodHS256, key, func(c *sessionClaims) { c.ExpiresAt = nil }),
		"another account": sign(jwt.SigningMethodHS256, key, func(c *sessionClaims) { c.Subject = streams.AccountIDOf("other").String() }),
		"another login":   sign(jwt.SigningMethodHS256, key, func(c *sessionClaims) { c.Login = "nobody" }),
		"a phone's login": sign(jwt.SigningMethodHS256, key, func(c *sessionClaims) { c.Login = "Pixel" }),
		"no password":     sign(jwt.SigningMethodHS256, key, func(c *sessionClaims) { c.Password = "" }),
		"nothing":         "",
		"no token":        "a.b.c",
	} {
		if _, _, err := c.AdmitSession(t.Context(), token, Posting); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: got %v, want a refusal", what, err)
		}
	}
}

func TestBeginSession_Refuses(t *testing.T) {
	c := newAccess(t)
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

func (e ended) Key() string { return e.key }

func (e ended) Created() time.Time { return e.at }

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
func TestSessions_TooMany(t *testing.T) {
	c := newAccess(t)
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
	elsewhere := newAccessOn(t, c.bus)
	elsewhere.sessions.mu.Lock()
	defer elsewhere.sessions.mu.Unlock()
	if got := elsewhere.sessions.marks.of(shop.ID, now); got != 4 {
		t.Errorf("got %d marks at another ingress, want 4", got)
	}
}

// A session that is ended at one ingress has ended at the others, at those that start later too.
func TestEndSession_Elsewhere(t *testing.T) {
	c := newAccess(t)
	putAccount(t, c, shopLogin(t))
	running := newAccessOn(t, c.bus)
	login := admitted(t, c, "shop", "correct horse")
	tokens, err := c.BeginSession(t.Context(), login, time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.BeginSession(t.Context(), login, time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EndSession(t.Context(), login, tokens.ID); err != nil {
		t.Fatal(err)
	}
	later := newAccessOn(t, c.bus)
	if _, _, err := later.AdmitSession(t.Context(), tokens.Access, Posting); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("at an ingress that started later: got %v, want a refusal", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for { // until it has heard of it
		_, _, err := running.AdmitSession(ctx, tokens.Access, Posting)
		if fault.Is(err, fault.Unauthenticated) {
			break
		}
		if err != nil || ctx.Err() != nil {
			t.Fatalf("at an ingress that was running: got %v, want a refusal", err)
		}
	}
	for _, at := range []*Access{c, running, later} {
		if _, _, err := at.AdmitSession(t.Context(), other.Access, Posting); err != nil {
			t.Errorf("another session of the login: %v", err)
		}
		renewing := Session{Caller: login}
		if _, err := at.RenewSession(t.Context(), renewing, tokens.Renew); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("renewed after its end: got %v, want a refusal", err)
		}
	}
}

// The login of a session's tokens has them by one account: an access token does not renew, nor one of another account.
func TestRenewSession_Anothers(t *testing.T) {
	c := newAccess(t)
	shop := shopLogin(t)
	putAccount(t, c, shop)
	other := streams.Account{ID: streams.AccountIDOf("other"), Name: "other", Login: "other", Password: hashed(t, "battery staple")}
	putAccount(t, c, other)
	tokens, err := c.BeginSession(t.Context(), admitted(t, c, "shop", "correct horse"), time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RenewSession(t.Context(), Session{Caller: admitted(t, c, "other", "battery staple")}, tokens.Renew); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("by another account: got %v", err)
	}
	if _, err := c.RenewSession(t.Context(), Session{Caller: admitted(t, c, "shop", "correct horse")}, tokens.Access); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("with an access token: got %v", err)
	}
}

// Each deployment signs with a key of its own, which cannot be guessed, and a renew token lasts as long as a session may.
func TestSessions_KeyAndEnd(t *testing.T) {
	a, b := newAccess(t), newAccess(t)
	one, err := a.signingKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	another, err := b.signingKey(t.Context())
	if err != nil || bytes.Equal(one, another) || len(one) != keyBytes {
		t.Errorf("got keys of %d and %d bytes that are equal: %t, %v", len(one), len(another), bytes.Equal(one, another), err)
	}
	putAccount(t, a, shopLogin(t))
	now := time.Now()
	a.now = func() time.Time { return now }
	tokens, err := a.BeginSession(t.Context(), admitted(t, a, "shop", "correct horse"), time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(streams.SessionTTL - time.Minute)
	session, rate, err := a.AdmitSession(t.Context(), tokens.Renew, Posting)
	if err != nil || len(session.Scopes) != 1 || session.Scopes[0] != renewScope {
		t.Errorf("a minute before its end: got %+v, %v", session, err)
	}
	if rate.Limit != session.Account.Plan.Rate {
		t.Errorf("got rate %+v, want the plan's %d", rate, session.Account.Plan.Rate)
	}
	if _, _, err := a.AdmitSession(t.Context(), tokens.Access, Posting); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("an access token of an hour: got %v", err)
	}
}

// Only what ends a session ends it: one that was renewed goes on until its tokens run out.
func TestSessions_RenewedIsNotEnded(t *testing.T) {
	c := newAccess(t)
	putAccount(t, c, shopLogin(t))
	login := admitted(t, c, "shop", "correct horse")
	tokens, err := c.BeginSession(t.Context(), login, time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	session, _, err := c.AdmitSession(t.Context(), tokens.Renew, Posting)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RenewSession(t.Context(), session, tokens.Renew); err != nil {
		t.Fatal(err)
	}
	later := newAccessOn(t, c.bus) // which has read all marks
	if n := len(later.sessions.ended); n != 0 {
		t.Errorf("got %d sessions that have ended, want none", n)
	}
	if _, _, err := later.AdmitSession(t.Context(), tokens.Access, Posting); err != nil {
		t.Errorf("the access token of a session that was renewed: got %v", err)
	}
}

// Marks of days that are over are dropped on the first of a day.
func TestMarks_Note(t *testing.T) {
	m, begun := marks{}, time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	id := streams.AccountIDOf("shop")
	m.note("renewed."+id.String()+".one", begun)
	m.note("revoked."+id.String()+".one", begun.Add(31*day))
	if got := m.of(id, begun.Add(31*day)); got != 1 || len(m[id.String()]) != 1 {
		t.Errorf("got %d marks of %d days, want one of one", got, len(m[id.String()]))
	}
}

// An engine that does not answer about sessions is not waited for.
func TestBeginSession_Late(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newAccess(t)
		speak := bustest.Mute(t, c.bus)
		defer speak()
		begun := time.Now()
		_, err := c.BeginSession(t.Context(), Caller{Account: account, Login: "acme"}, 0, []string{"all:any"})
		if f := fault.As(err); f == nil || f.Code != "registry_unavailable" || time.Since(begun) != 2*time.Second {
			t.Errorf("got %v after %s, want a refusal after 2s", err, time.Since(begun))
		}
	})
}
