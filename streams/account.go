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
	// Used up by the account, and only its own posts are refused.
	Limit      int64         `json:"limit"`    // messages a UTC month; 0: no limit
	Rate       int           `json:"rate"`     // requests a minute and token; 0: no limit
	Lease      time.Duration `json:"lease"`    // nanoseconds a pull's messages stay with a phone
	Attempts   int           `json:"attempts"` // how often a message is handed out before it fails
	AfterLapse LapsePolicy   `json:"after_lapse,omitempty"`
	Validity   time.Duration `json:"validity,omitzero"` // nanoseconds a message waits at most, if it says nothing else; 0: DefaultValidity
}

// The defaults of a plan.
const (
	// Used up by who has the token, and only that token's requests are
	// refused.
	DefaultRate = 60
	// Used up by a phone that is gone: only its messages wait.
	DefaultLease = 10 * time.Minute
	// Used up by phones that do not report, and only that account's messages
	// fail.
	DefaultAttempts = 3
	// Passed by a message that no phone takes, which alone expires.
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
	// MaxSchedule is how far ahead a message may be due. Used up by one
	// request, which alone is refused.
	MaxSchedule = 21 * day
	// MaxValidity is how long after it was accepted, or after it is due, a
	// message may be sent: with MaxSchedule, less than it is known. Used up
	// by one request, which alone is refused.
	MaxValidity = 7 * day
)

// MaxDevices is the most devices an account can have. Used up by one account,
// and only its own new phones are refused.
const MaxDevices = 1000

// DeviceKey is a device's key in the devices bucket.
func DeviceKey(account AccountID, device DeviceID) string {
	return account.String() + "." + device.String()
}

// DeviceKeys matches the keys of all devices of an account.
func DeviceKeys(account AccountID) string { return account.String() + ".*" }
