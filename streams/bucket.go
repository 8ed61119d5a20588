package streams

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The buckets.
const (
	AccountsBucket = "accounts" // account id → Account; Login key → account id
	DevicesBucket  = "devices"  // <account>.<device> → Device
	ClaimsBucket   = "claims"   // who holds what, for as long as they renew it
	RegistryBucket = "registry" // what clients of accounts registered: webhooks, settings; where logins came from; the key that signs sessions
	SessionsBucket = "sessions" // sessions that were ended before their time
)

// SessionTTL is how long a session can be renewed, and that it ended is known.
//
// Limit: a session can be renewed for 30 days. Beyond it: 401: log in again.
// Used up by: a login that rests. Hurts: that login alone. Test: TestSessions.
const SessionTTL = 30 * 24 * time.Hour

// maxSessions is the most bytes of ended sessions: half a million of them. An
// account has a share of it: some 25 together use it up, and then nobody's
// session can be ended.
//
// Limit: ended sessions that are remembered take at most 64 MiB, some 500,000 of them. Beyond it: 503: no session
// can be ended now.
// Used up by: some 25 accounts together, each within its own bound. Hurts: all accounts. Test:
// TestDefinitionsAreGolden.
const maxSessions = 64 << 20

// SigningKey is the registry's key of what signs sessions.
const SigningKey = "signing"

// SettingsKey is the registry's key of an account's settings for its phones.
func SettingsKey(account AccountID) string { return account.String() + ".settings" }

// PlacesKey is the registry's key of where an account's logins came from.
func PlacesKey(account AccountID) string { return account.String() + ".places" }

// WebhookKey is the registry's key of an account's webhook.
func WebhookKey(account AccountID, id string) string {
	sum := sha256.Sum256([]byte(id))
	return account.String() + ".webhook." + hex.EncodeToString(sum[:16])
}

// WebhookKeys matches all of an account.
func WebhookKeys(account AccountID) string { return account.String() + ".webhook.*" }

// RevokedKey is the key in the sessions bucket of a session that was ended.
func RevokedKey(account AccountID, session string) string {
	return RevokedPrefix + account.String() + "." + session
}

// RevokedPrefix begins the keys of all sessions that were ended.
const RevokedPrefix = "revoked."

// RenewedKey is the key in the sessions bucket of a session that was renewed,
// or ended: it is renewed once.
func RenewedKey(account AccountID, session string) string {
	return "renewed." + account.String() + "." + session
}

// ClaimTTL is how long a claim lasts after its last renewal. It is the bucket's: a key's own would be lost with
// the first update.
//
// Limit: a claim that is not renewed lasts for 20 s. Beyond it: it ends: another process may lead quota, or take
// the ingress number.
// Used up by: an engine that is away. Hurts: everybody, until it is back: that ingress takes no messages, or quota
// has no leader. Test: TestClaim_RunsOut.
const ClaimTTL = 20 * time.Second

// QuotaClaim is the key of the quota leader's claim.
const QuotaClaim = "quota"

// IngressClaims matches the claims of all ingress instances.
const IngressClaims = ingressClaimPrefix + "*"

const ingressClaimPrefix = "ingress."

// IngressClaim is the key of one ingress instance's claim on its number.
func IngressClaim(instance int) string { return ingressClaimPrefix + strconv.Itoa(instance) }

// ParseIngressClaim reads what IngressClaim gives.
func ParseIngressClaim(key string) (instance int, err error) {
	// What is no number is another key than that of the number it is read as.
	instance, _ = strconv.Atoi(strings.TrimPrefix(key, ingressClaimPrefix))
	if instance < 0 || instance > MaxInstance || key != IngressClaim(instance) {
		return 0, fmt.Errorf("parse ingress claim %q: want ingress.<instance>", key)
	}
	return instance, nil
}

// Accounts defines the bucket of accounts.
func (d Deployment) Accounts() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:      AccountsBucket,
		Description: "Accounts: plans, subscriptions, hashed secrets",
		History:     5,
		Storage:     jetstream.FileStorage,
		Replicas:    d.Replicas,
	}
}

// Devices defines the bucket of devices.
func (d Deployment) Devices() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:      DevicesBucket,
		Description: "Phones that pull: names and when they were last seen",
		History:     1,
		Storage:     jetstream.FileStorage,
		Replicas:    d.Replicas,
	}
}

// Registry defines the bucket of what clients registered.
func (d Deployment) Registry() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:      RegistryBucket,
		Description: "Accounts' webhooks and settings; the key that signs sessions",
		History:     1,
		Storage:     jetstream.FileStorage,
		Replicas:    d.Replicas,
	}
}

// Sessions defines the bucket of sessions that were ended.
func (d Deployment) Sessions() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:      SessionsBucket,
		Description: "Sessions that were ended before their time",
		History:     1,
		TTL:         SessionTTL,
		MaxBytes:    maxSessions,
		Storage:     jetstream.FileStorage,
		Replicas:    d.Replicas,
	}
}

// Claims defines the bucket of claims.
func (d Deployment) Claims() jetstream.KeyValueConfig {
	return jetstream.KeyValueConfig{
		Bucket:      ClaimsBucket,
		Description: "Quota's leader and the numbers of ingress instances",
		History:     1,
		TTL:         ClaimTTL,
		Storage:     jetstream.FileStorage,
		Replicas:    d.Replicas,
	}
}
