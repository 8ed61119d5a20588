package streams

import (
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// The buckets.
const (
	AccountsBucket = "accounts" // account id → Account; Login key → account id
	DevicesBucket  = "devices"  // <account>.<device> → Device
	ClaimsBucket   = "claims"   // who holds what, for as long as they renew it
)

// ClaimTTL is how long a claim lasts after its last renewal. It is the
// bucket's: a key's own would be lost with the first update.
const ClaimTTL = 20 * time.Second

// QuotaClaim is the key of the quota leader's claim.
const QuotaClaim = "quota"

// IngressClaims matches the claims of all ingress instances.
const IngressClaims = "ingress.*"

// IngressClaim is the key of one ingress instance's claim on its number.
func IngressClaim(instance int) string { return "ingress." + strconv.Itoa(instance) }

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
