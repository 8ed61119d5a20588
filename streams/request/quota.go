package request

import (
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// Quota's subjects.
const (
	QuotaReserve = "trunkline.quota.reserve" // Reserve → Grant
	QuotaRelease = "trunkline.quota.release" // Release → Released
	QuotaUsage   = "trunkline.quota.usage"   // UsageOf → Usage
)

// GrantTTL is how long a grant lasts when neither its events nor a release end it. An ingress begins no publish
// later than 10 s after it asked and gives up 20 s later; what it has sent and has not arrived by then is refused,
// since quota moves the ingress's fence before it gives the room again.
//
// Limit: a grant of which nothing is heard stays open for 60 s. Beyond it: the fence of its ingress is moved, and
// its room is free again.
// Used up by: an ingress that died. Hurts: its account: for so long, that room is not free. Test:
// TestGrantEndsByItself.
const GrantTTL = 60 * time.Second

// LimitReserved is the code of a LimitExceeded that stands for grants which are
// open still: what is stored would leave room.
const LimitReserved = "limit_reserved"

// Reserve asks for room for Count messages, all or none. A refusal is the fault
// LimitExceeded with the limit and what is used.
type Reserve struct {
	Account  streams.AccountID `json:"account"`
	Count    int               `json:"count"`
	Limit    int64             `json:"limit"`    // of the account's plan, more than 0
	Instance int               `json:"instance"` // of the ingress that asks
}

// Grant is room that was reserved. It ends when its events arrive, when it is
// released, or after GrantTTL, once the fence of its ingress has moved.
type Grant struct {
	ID      string            `json:"id"`
	Account streams.AccountID `json:"account"`
	Month   string            `json:"month"` // the UTC month it counts in
	Count   int               `json:"count"`
	Leader  uint64            `json:"leader"` // the revision of the claim it was given under

	Instance int `json:"instance,omitempty"` // of the ingress that it was given to
}

// Release gives a grant back whose messages surely were not stored.
type Release struct {
	Grant Grant `json:"grant"`
}

// Released answers a Release.
type Released struct{}

// UsageOf asks what an account has used.
type UsageOf struct {
	Account streams.AccountID `json:"account"`
}

// Usage is what an account has used in a month, open grants included.
type Usage struct {
	Month string `json:"month"`
	Used  int64  `json:"used"`
}
