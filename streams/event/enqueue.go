package event

import (
	"encoding/json"

	"github.com/trunkline-sms/trunkline/streams"
)

// Enqueued says that a message was accepted. Its account and lane are in its
// subject. Only this event holds the text.
type Enqueued struct {
	ID    streams.MessageID `json:"id"`
	Phone Private           `json:"phone"`
	Text  Private           `json:"text"`
	Month string            `json:"month"`           // the UTC month it counts in, "2026-11"
	Grant string            `json:"grant,omitempty"` // quota's grant, where the account has a limit
}

// Kind is message.enqueued.v1.
func (Enqueued) Kind() Kind { return KindEnqueued }

func (e Enqueued) wire() any {
	return struct {
		ID    streams.MessageID `json:"id"`
		Phone string            `json:"phone"`
		Text  string            `json:"text"`
		Month string            `json:"month"`
		Grant string            `json:"grant,omitempty"`
	}{e.ID, e.Phone.Reveal(), e.Text.Reveal(), e.Month, e.Grant}
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

// Barrier marks the place up to which a new leader of quota must fold.
type Barrier struct {
	Claim uint64 `json:"claim"` // the revision of the leader's claim
}

// Kind is barrier.v1.
func (Barrier) Kind() Kind { return KindBarrier }
