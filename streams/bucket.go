package streams

import (
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
)

// ClaimTTL is how long a claim lasts after its last renewal. It is the
// bucket's: a key's own would be lost with the first update.
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
	number, ok := strings.CutPrefix(key, ingressClaimPrefix)
	instance, err = strconv.Atoi(number)
	if !ok || err != nil || instance < 0 || instance > MaxInstance || key != IngressClaim(instance) {
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
