package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// MaxAccess is how long an access token lasts at most, and if no time is asked for.
	//
	// Limit: an access token lasts 24 h, or less if that is asked for. Beyond it: 401.
	// Used up by: every token, by age. Hurts: nobody: its holder begins or renews a session.
	// Test: TestBeginSession_Refuses.
	MaxAccess = 24 * time.Hour

	issuer     = "trunkline"
	keyBytes   = 32
	renewScope = "tokens:refresh"
	// Limit: a session has 1 to 32 scopes. Beyond it: 400.
	// Used up by: one request. Hurts: only that request. Test: TestBeginSession_Refuses.
	maxScopes = 32 // of a session
	// Limit: a scope has 1 to 64 characters. Beyond it: 400.
	// Used up by: one request. Hurts: only that request. Test: TestBeginSession_Refuses.
	maxScope = 64 // characters
	// forgetEvery is how often ended sessions are forgotten whose tokens have expired.
	forgetEvery = 24 * time.Hour
)

// Session is a caller that came with a session's token, and what the token is for.
type Session struct {
	Caller
	Scopes []string
}

// Tokens are a new session's, as JSON Web Tokens (RFC 7519) signed with HS256.
type Tokens struct {
	ID      string // names the session, for EndSession
	Access  secret.String
	Renew   secret.String // gives a new session, once
	Expires time.Time     // of Access
}

var (
	errSession = fault.New(fault.Unauthenticated, "invalid_session", "Invalid or expired token")
	errScopes  = fault.New(fault.Invalid, "invalid_scopes", "Scopes must be 1 to 32 texts of 1 to 64 characters")
	errNoLogin = fault.New(fault.Forbidden, "login_required", "Only a login can begin a session")
)

// sessionClaims are what a token states. A renew token has one scope, that of renewing, and carries the scopes of the next
// session.
type sessionClaims struct {
	jwt.RegisteredClaims
	Login    string   `json:"login"`
	Password string   `json:"pwd"` // ties the token to the login's password as it was
	Scopes   []string `json:"scopes"`
	Original []string `json:"original_scopes,omitempty"`
}

// sessions knows which sessions were ended, and the key that signs.
type sessions struct {
	followed

	mu    sync.RWMutex
	ended map[string]time.Time // by key in the bucket: when
	swept time.Time            // when expired ones were forgotten last
	marks marks                // of ended and renewed ones
	key   []byte
}

func newSessions() *sessions {
	return &sessions{followed: newFollowed(), ended: map[string]time.Time{}, marks: marks{}}
}

// follow reads which sessions were ended, and counts them and those that were renewed, until ctx is done.
func (s *sessions) follow(ctx context.Context, b *bus.Bus, log *zap.Logger) error {
	forgetMarks := func() {
		s.mu.Lock()
		s.marks = marks{} // all are read again
		s.mu.Unlock()
	}
	return s.followed.follow(ctx, b, streams.SessionsBucket, log, forgetMarks, s.note)
}

func (s *sessions) note(entry jetstream.KeyValueEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if entry.Operation() != jetstream.KeyValuePut {
		delete(s.ended, entry.Key())
		return
	}
	now := entry.Created()
	s.marks.note(entry.Key(), now)
	if !strings.HasPrefix(entry.Key(), streams.RevokedPrefix) {
		return
	}
	s.ended[entry.Key()] = now
	// The bucket removes expired entries without saying so. It goes by the engine's clock, as is done here.
	if now.Sub(s.swept) < forgetEvery {
		return
	}
	s.swept = now
	for key, at := range s.ended {
		if now.Sub(at) >= streams.SessionTTL {
			delete(s.ended, key)
		}
	}
}

func (s *sessions) hasEnded(account streams.AccountID, id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.ended[streams.RevokedKey(account, id)]
	return ok
}

// signingKey is the key that all ingresses sign with: the first one that needs it makes it.
func (a *Access) signingKey(ctx context.Context) ([]byte, error) {
	a.sessions.mu.RLock()
	key := a.sessions.key
	a.sessions.mu.RUnlock()
	if key != nil {
		return key, nil
	}
	key, revision, err := a.registry.Get(ctx, streams.SigningKey)
	if err == nil && revision == 0 {
		made := make([]byte, keyBytes)
		_, _ = rand.Read(made) // never fails: it ends the process instead
		if _, err = a.registry.Create(ctx, streams.SigningKey, made); err == nil {
			key, _, err = a.registry.Get(ctx, streams.SigningKey) // another ingress may have made it
		}
	}
	if err != nil {
		return nil, err
	}
	if len(key) != keyBytes {
		return nil, fmt.Errorf("the key that signs sessions has %d bytes, want %d", len(key), keyBytes)
	}
	a.sessions.mu.Lock()
	defer a.sessions.mu.Unlock()
	a.sessions.key = key
	return key, nil
}

// BeginSession gives a login tokens that stand for it, for at most ttl (0: MaxAccess).
func (a *Access) BeginSession(ctx context.Context, caller Caller, ttl time.Duration, scopes []string) (Tokens, error) {
	if caller.Login == "" || caller.Device != 0 {
		return Tokens{}, errNoLogin
	}
	tooLong := func(scope string) bool { return scope == "" || len(scope) > maxScope }
	if len(scopes) == 0 || len(scopes) > maxScopes || slices.ContainsFunc(scopes, tooLong) {
		return Tokens{}, errScopes
	}
	if ttl <= 0 || ttl > MaxAccess {
		ttl = MaxAccess
	}
	key, err := a.signingKey(ctx)
	if err != nil {
		return Tokens{}, err
	}
	now := a.now()
	id := newSessionID(key, caller.Account.ID)
	access := sessionClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			ID: id, Issuer: issuer, Subject: caller.Account.ID.String(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
		},
		Login: caller.Login, Password: passwordMark(key, caller.Account.Password), Scopes: scopes,
	}
	renew := access
	renew.ExpiresAt = jwt.NewNumericDate(now.Add(streams.SessionTTL))
	renew.Scopes, renew.Original = []string{renewScope}, scopes
	tokens := Tokens{ID: id, Expires: access.ExpiresAt.UTC()}
	for _, one := range []struct {
		session sessionClaims
		into    *secret.String
	}{{access, &tokens.Access}, {renew, &tokens.Renew}} {
		signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, one.session).SignedString(key)
		if err != nil {
			return Tokens{}, fmt.Errorf("sign a session: %w", err)
		}
		*one.into = secret.String(signed)
	}
	return tokens, nil
}

// newSessionID makes an id that proves which account it belongs to. So nobody can fill the bucket by ending sessions that
// never were.
func newSessionID(key []byte, account streams.AccountID) string {
	part := rand.Text()[:11]
	return part + sessionMark(key, account, part)
}

func sessionMark(key []byte, account streams.AccountID, part string) string {
	return mark(key, "session/"+account.String()+"/"+part)[:10]
}

func passwordMark(key []byte, hash string) string { return mark(key, "password/"+hash)[:16] }

func mark(key []byte, text string) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// readToken reads a token. It is a fault Unauthenticated unless we signed it, it has not expired, its session has not
// ended, and its login still has the same password.
func (a *Access) readToken(ctx context.Context, token secret.String) (sessionClaims, login, error) {
	if !a.Loaded() {
		return sessionClaims{}, login{}, errNotLoaded
	}
	key, err := a.signingKey(ctx)
	if err != nil {
		return sessionClaims{}, login{}, err
	}
	var claims sessionClaims
	_, err = jwt.ParseWithClaims(token.Reveal(), &claims, func(*jwt.Token) (any, error) { return key, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithIssuer(issuer), jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(), jwt.WithTimeFunc(a.now), jwt.WithLeeway(clock.Bound))
	if err != nil {
		return claims, login{}, errSession
	}
	one, ok := a.accounts.login(claims.Login)
	switch {
	case !ok, one.device != 0, one.account.ID.String() != claims.Subject,
		!hmac.Equal([]byte(claims.Password), []byte(passwordMark(key, one.hash))),
		a.sessions.hasEnded(one.account.ID, claims.ID):
		return claims, login{}, errSession
	}
	return claims, one, nil
}

// AdmitSession finds the caller of an access token, and counts the request as AdmitLogin does.
func (a *Access) AdmitSession(ctx context.Context, token secret.String, use Use) (Session, Rate, error) {
	claims, one, err := a.readToken(ctx, token)
	if err != nil {
		return Session{}, Rate{}, err
	}
	caller, rate, err := a.admitLogin(claims.Login, one, use)
	return Session{Caller: caller, Scopes: claims.Scopes}, rate, err
}

// RenewSession begins a new session with the scopes of an earlier one, once. The caller was admitted with that one's
// renew token.
func (a *Access) RenewSession(ctx context.Context, s Session, token secret.String) (Tokens, error) {
	claims, one, err := a.readToken(ctx, token)
	if err != nil {
		return Tokens{}, err
	}
	if len(claims.Original) == 0 || one.account.ID != s.Account.ID {
		return Tokens{}, errSession
	}
	if err := a.sessions.mayMark(one.account.ID, maxMarks/2, a.now()); err != nil {
		return Tokens{}, err
	}
	tokens, err := a.BeginSession(ctx, s.Caller, 0, claims.Original)
	if err != nil {
		return Tokens{}, err
	}
	first, err := a.markSession(ctx, streams.RenewedKey(one.account.ID, claims.ID))
	if err == nil && !first {
		err = errSession
	}
	if err != nil {
		return Tokens{}, err
	}
	return tokens, nil
}

// EndSession ends a session of the caller's account: its tokens are rejected from then on, by other ingresses a moment
// later. A session that is unknown has ended.
func (a *Access) EndSession(ctx context.Context, caller Caller, id string) error {
	account := caller.Account.ID
	key, err := a.signingKey(ctx)
	if err != nil {
		return err
	}
	part := id[:min(len(id), 11)]
	if !hmac.Equal([]byte(id), []byte(part+sessionMark(key, account, part))) || strings.ContainsAny(part, ".*> ") {
		return nil
	}
	if a.sessions.hasEnded(account, id) {
		return nil
	}
	if err := a.sessions.mayMark(account, maxMarks, a.now()); err != nil {
		return err
	}
	for _, name := range []string{streams.RenewedKey(account, id), streams.RevokedKey(account, id)} {
		if _, err := a.markSession(ctx, name); err != nil {
			return err
		}
	}
	a.sessions.mu.Lock()
	defer a.sessions.mu.Unlock()
	if key := streams.RevokedKey(account, id); a.sessions.ended[key].IsZero() { // follow has not seen it yet
		a.sessions.ended[key] = a.now()
	}
	return nil
}

// markSession stores a mark in the sessions bucket. first is false if the mark was there already: of two renewals at the
// same time, one is first.
func (a *Access) markSession(ctx context.Context, key string) (first bool, err error) {
	return kv.Bucket{Bus: a.bus, Name: streams.SessionsBucket}.Create(ctx, key, nil)
}
