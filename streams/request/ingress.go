package request

import (
	"strconv"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// IngressSeen is the subject of Seen → Saw of one ingress instance.
func IngressSeen(instance int) string { return ingress(instance, "seen") }

// IngressGrants is the subject of OpenGrants → Grants of one ingress instance.
func IngressGrants(instance int) string { return ingress(instance, "grants") }

func ingress(instance int, verb string) string {
	return "trunkline.ingress." + strconv.Itoa(instance) + "." + verb
}

// Seen asks an ingress to answer once it acts on the accounts bucket as of a
// revision.
type Seen struct {
	Revision uint64 `json:"revision"`
}

// Saw answers a Seen.
type Saw struct{}

// OpenGrants asks an ingress for the grants whose messages it may still store,
// and tells it of quota's new leader.
type OpenGrants struct {
	Leader uint64 `json:"leader"`
}

// Grants are the open grants of one ingress.
type Grants struct {
	Grants []Grant `json:"grants"`
}

// IngressUsed is the subject of Used, which every ingress hears and none
// answers.
const IngressUsed = "trunkline.ingress.used"

// Used says how many requests an ingress let through, and which devices called,
// since it last said so.
type Used struct {
	By     string `json:"by"` // tells the ingresses apart, and oneself
	Tokens []Use  `json:"tokens"`

	Devices []Contact `json:"devices,omitempty"` // that called
}

// Contact is when a device called last.
type Contact struct {
	Device streams.DeviceID `json:"device"`
	At     time.Time        `json:"at"`
}

// Kind is what a request of a sender or a phone is for. Each has the token's rate.
type Kind int

// The kinds.
const (
	Posting Kind = iota
	Pulling
	Reporting
)

// Use is what was let through of one token, for one kind of requests.
type Use struct {
	Token streams.TokenHash `json:"token"`
	Kind  Kind              `json:"kind,omitempty"`
	Rate  int               `json:"rate"` // of its plan, requests a minute
	Count int               `json:"count"`
}

// IngressStorage is the subject of StorageUse, which every ingress hears and none
// answers. A dispatcher publishes it once a second for each shard.
const IngressStorage = "trunkline.ingress.shares"

// StorageUse names all accounts that store nearly their share of a shard's streams,
// or more.
type StorageUse struct {
	Shard    streams.Shard `json:"shard"`
	Accounts []Storage     `json:"accounts"`
}

// Storage is how much of the streams an account stores, in percent of what the
// other accounts leave; 0 where that is little. Where a stream is Over, the
// account may store no more in it.
type Storage struct {
	Account     streams.AccountID `json:"account"`
	Enqueue     int               `json:"enqueue,omitempty"`
	EnqueueOver bool              `json:"enqueue_over,omitempty"`
	Status      int               `json:"status,omitempty"`
	StatusOver  bool              `json:"status_over,omitempty"`
}

// Over says whether the account may store no more in one of the streams.
func (s Storage) Over() bool { return s.EnqueueOver || s.StatusOver }
