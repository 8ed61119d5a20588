package event

import (
	"encoding/json"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// Enqueued says that a message was accepted. Its account and lane are in its
// subject. Only this event, and Scheduled, hold the text: behind the fields that
// are folded, so that a fold need not read it.
type Enqueued struct {
	ID        streams.MessageID `json:"id"`
	Group     streams.MessageID `json:"group,omitzero"`     // the first message of its group; zero: it is a group alone
	Name      string            `json:"name,omitempty"`     // the sender's id of the group, on its first message
	Until     time.Time         `json:"until,omitzero"`     // it is not handed out from then on; zero: whenever
	Due       time.Time         `json:"due,omitzero"`       // it is not handed out before
	Released  bool              `json:"released,omitempty"` // it was scheduled, and counted then
	Phone     Private           `json:"phone"`
	Text      Private           `json:"text"`
	Data      Private           `json:"data,omitempty"`       // base64, instead of a text
	Port      int               `json:"port,omitempty"`       // of data
	Encrypted bool              `json:"encrypted,omitempty"`  // number and content are for the phone to decrypt
	SIM       int               `json:"sim,omitempty"`        // which SIM card sends it, from 1; 0: the phone's choice
	NoReceipt bool              `json:"no_receipt,omitempty"` // the sender wants no delivery report
	Priority  int               `json:"priority,omitempty"`   // as the sender gave it, for the phone
	Month     string            `json:"month"`                // the UTC month it counts in, "2026-11"
	Grant     string            `json:"grant,omitempty"`      // quota's grant, where the account has a limit
}

// Kind is message.enqueued.v1.
func (Enqueued) Kind() Kind { return KindEnqueued }

func (e Enqueued) wire() any { return e.toWire() }

func (e Enqueued) toWire() wireEnqueued {
	return wireEnqueued{
		ID: e.ID, Group: e.Group, Name: e.Name, Until: e.Until, Due: e.Due, Released: e.Released,
		Phone: e.Phone.Reveal(), Text: e.Text.Reveal(), Data: e.Data.Reveal(), Port: e.Port, Encrypted: e.Encrypted,
		SIM: e.SIM, NoReceipt: e.NoReceipt, Priority: e.Priority, Month: e.Month, Grant: e.Grant,
	}
}

type wireEnqueued struct {
	ID        streams.MessageID `json:"id"`
	Group     streams.MessageID `json:"group,omitzero"`
	Name      string            `json:"name,omitempty"`
	Until     time.Time         `json:"until,omitzero"`
	Due       time.Time         `json:"due,omitzero"`
	Released  bool              `json:"released,omitempty"`
	Phone     string            `json:"phone"`
	Text      string            `json:"text"`
	Data      string            `json:"data,omitempty"`
	Port      int               `json:"port,omitempty"`
	Encrypted bool              `json:"encrypted,omitempty"`
	SIM       int               `json:"sim,omitempty"`
	NoReceipt bool              `json:"no_receipt,omitempty"`
	Priority  int               `json:"priority,omitempty"`
	Month     string            `json:"month"`
	Grant     string            `json:"grant,omitempty"`
}

// Scheduled says that a message was accepted which is due later: no subject
// says its lane. When it is due it is enqueued, released.
type Scheduled struct {
	Lane streams.Lane `json:"lane"`
	Enqueued
}

// Kind is message.scheduled.v1.
func (Scheduled) Kind() Kind { return KindScheduled }

func (s Scheduled) wire() any {
	return struct {
		Lane streams.Lane `json:"lane"`
		wireEnqueued
	}{s.Lane, s.Enqueued.toWire()}
}

// Keyed marks a request that carried an idempotency key, with the answer that
// repeats of it get. It leaves the stream after streams.KeyTTL.
type Keyed struct {
	Request  string              `json:"request"` // SHA-256 of the request, hex
	Messages []streams.MessageID `json:"messages"`
	Answer   json.RawMessage     `json:"answer"`
}

// Kind is request.keyed.v1.
func (Keyed) Kind() Kind { return KindKeyed }

// Barrier marks a place in a shard for quota: up to it a new leader must fold,
// and at one that names a month the counts of all others end.
type Barrier struct {
	Claim uint64 `json:"claim"` // the revision of the leader's claim
	Month string `json:"month,omitempty"`
}

// Kind is barrier.v1.
func (Barrier) Kind() Kind { return KindBarrier }

// Fence refuses what its ingress instance had sent before and has not arrived:
// each commit of an instance expects the last one of its fences.
type Fence struct {
	By string `json:"by"` // who moved the fence, as no other process says it
}

// Kind is fence.v1.
func (Fence) Kind() Kind { return KindFence }

// Reserved says which ids an ingress instance may give to a shard's messages: those
// from the time on that the last event there named, and before its own. Nobody
// else ever gives them under that number.
type Reserved struct {
	By     string    `json:"by"` // who gives them, as no other process says it
	Before time.Time `json:"before"`
}

// Kind is ids.reserved.v1.
func (Reserved) Kind() Kind { return KindReserved }
