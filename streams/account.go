package streams

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Account is a tenant, as it stands in the accounts bucket. Secrets are there
// only as hashes.
type Account struct {
	ID           AccountID    `json:"id"`
	Name         string       `json:"name"`
	Created      time.Time    `json:"created"`
	Suspended    bool         `json:"suspended,omitempty"`
	Plan         Plan         `json:"plan"`
	Subscription Subscription `json:"subscription"`
	Tokens       []Token      `json:"tokens"`
	Login        string       `json:"login,omitempty"`
	Password     string       `json:"password,omitempty"` // bcrypt
	Devices      []Login      `json:"devices,omitempty"`  // phones that senders address by a login of their own
	Region       string       `json:"region,omitempty"`   // of numbers without a country, ISO 3166-1 alpha-2
}

// Login is what senders give to have messages sent by one phone.
type Login struct {
	Device   DeviceID `json:"device"`
	Name     string   `json:"name"`     // unique in the deployment, among accounts' logins too
	Password string   `json:"password"` // bcrypt
}

// Plan is what an account may do.
type Plan struct {
	// Limit: an account sends as many messages in a UTC month as its plan (--limit) says; without one as many as
	// it likes. Beyond it: 429 limit_exceeded; nothing of the request is stored.
	// Used up by: one account. Hurts: that account alone. Test: TestLimit.
	Limit      int64         `json:"limit"`    // messages a UTC month; 0: no limit
	Rate       int           `json:"rate"`     // requests a minute and token; 0: no limit
	Lease      time.Duration `json:"lease"`    // nanoseconds a pull's messages stay with a phone
	Attempts   int           `json:"attempts"` // how often a message is handed out before it fails
	AfterLapse LapsePolicy   `json:"after_lapse,omitempty"`
	Validity   time.Duration `json:"validity,omitzero"` // nanoseconds a message waits at most, if it says nothing else; 0: DefaultValidity
}

// The defaults of a plan.
const (
	// Limit: a token has 60 posts, 60 pulls and 60 reports a minute unless the plan (--rate) says otherwise; so
	// many may come at once. Beyond it: 429 rate_limited with Retry-After.
	// Used up by: whoever has the token. Hurts: who else has that token, and only for the same kind of request.
	// Test: TestRateComesBack.
	DefaultRate = 60
	// Limit: a pulled message stays with its phone for 10 min unless the plan (--lease) says otherwise. Beyond it:
	// the lease is renewed or lapses, see docs/states.md.
	// Used up by: a phone that is gone. Hurts: the messages that it has: they wait so long. Test:
	// TestLapsedMessagesGoToAnotherPhone.
	DefaultLease = 10 * time.Minute
	// Limit: a message is handed out 3 times unless the plan (--attempts) says otherwise. Beyond it: it fails with
	// the reason lease_lapsed.
	// Used up by: phones that pull and do not report. Hurts: the messages of their account. Test:
	// TestAttemptsAreUsedUp.
	DefaultAttempts = 3
	// Limit: a message is valid for 72 h unless the request or the plan (--validity) says otherwise. Beyond it: it
	// expires.
	// Used up by: a message that no phone takes. Hurts: that message alone. Test: TestEnqueue_Times.
	DefaultValidity = 72 * time.Hour
)

// LapsePolicy says what becomes of a message whose lease ran out.
type LapsePolicy string

// The lapse policies. Empty in a plan means the dialect's.
const (
	Retry LapsePolicy = "retry" // offered again, until its attempts are used up
	Hold  LapsePolicy = "hold"  // stays with its device, listed again only to it
	Fail  LapsePolicy = "fail"  // failed
)

// Subscription says until when an account may enqueue.
type Subscription struct {
	None  bool      `json:"none,omitempty"`
	Until time.Time `json:"until,omitzero"` // zero: without end
}

// Active says whether the subscription allows enqueueing at t.
func (s Subscription) Active(t time.Time) bool {
	return !s.None && (s.Until.IsZero() || t.Before(s.Until))
}

// Token is one API token of an account.
type Token struct {
	Hash    TokenHash `json:"hash"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
}

// TokenHash is the SHA-256 of a token, in hex. Tokens are 256 random bits, so
// one round of hashing suffices.
type TokenHash string

// HashToken gives the hash under which a token is stored and found.
func HashToken(token string) TokenHash {
	sum := sha256.Sum256([]byte(token))
	return TokenHash(hex.EncodeToString(sum[:]))
}

// AccountKey is an account's key in the accounts bucket.
func AccountKey(id AccountID) string { return "account." + id.String() }

// LoginKey is the key in the accounts bucket that a login is taken by; its
// value is the account's id.
func LoginKey(login string) string {
	sum := sha256.Sum256([]byte(login))
	return "login." + hex.EncodeToString(sum[:16])
}

// Device is one phone, as it stands in the devices bucket.
type Device struct {
	ID       DeviceID  `json:"id"`
	Name     string    `json:"name"`
	Created  time.Time `json:"created,omitzero"`
	LastSeen time.Time `json:"last_seen,omitzero"`
}

// How long messages may wait.
const (
	// MaxSchedule is how far ahead a message may be due.
	//
	// Limit: a message may be scheduled up to 21 days ahead. Beyond it: 400 in the dialect's form.
	// Used up by: one request. Hurts: that request alone. Test: TestEnqueue_Times.
	MaxSchedule = 21 * day
	// MaxValidity is how long after it was accepted, or after it is due, a message may be sent: with MaxSchedule,
	// less than it is known.
	//
	// Limit: a message may be valid for 7 days, from when it is due if it is scheduled. Beyond it: 400 in the
	// dialect's form.
	// Used up by: one request. Hurts: that request alone. Test: TestEnqueue_Times.
	MaxValidity = 7 * day
)

// MaxDevices is the most devices an account can have.
//
// Limit: an account has at most 1,000 names of devices. Beyond it: 409 too_many_devices for a pull under a new
// name; its reports are stored.
// Used up by: one account. Hurts: that account alone. Test: TestIngress_TooManyDevices.
const MaxDevices = 1000

// DeviceKey is a device's key in the devices bucket.
func DeviceKey(account AccountID, device DeviceID) string {
	return account.String() + "." + device.String()
}

// DeviceKeys matches the keys of all devices of an account.
func DeviceKeys(account AccountID) string { return account.String() + ".*" }
