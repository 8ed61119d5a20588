package event

import (
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// MaxItems is the most messages that one STATUS event carries.
//
// Limit: an event in STATUS carries at most 1,000 messages. Beyond it: 400; pulls and reports are smaller, so only
// an operator's command can come so far.
// Used up by: one request. Hurts: that request alone. Test: TestRequestsTooLarge.
const MaxItems = 1000

// MaxError is the most bytes of a phone's error text that are kept.
//
// Limit: of the error text of a report 256 bytes are kept. Beyond it: it is cut.
// Used up by: one request. Hurts: that request alone. Test: TestErrorText.
const MaxError = 256

// Attempt is a message in one of its rounds. A decision names attempts, and does
// not apply to a message that is in another round by the time it is folded.
type Attempt struct {
	ID    streams.MessageID `json:"id"`
	Round int               `json:"round"`
}

// Leased says that a pull's messages were given to a device.
type Leased struct {
	Lease    streams.LeaseID     `json:"lease"`
	Device   streams.DeviceID    `json:"device,omitzero"` // zero: the phone gave no name
	Name     string              `json:"name,omitempty"`
	At       time.Time           `json:"at"`
	Until    time.Time           `json:"until"`
	Policy   streams.LapsePolicy `json:"policy"`
	Attempts int                 `json:"attempts"`
	Messages []Attempt           `json:"messages"`
}

// Kind is messages.leased.v1.
func (Leased) Kind() Kind { return KindLeased }

// Renewed says that leases last longer.
type Renewed struct {
	At     time.Time `json:"at"`
	Leases []Renewal `json:"leases"`
}

// Renewal is one lease's new end.
type Renewal struct {
	Lease streams.LeaseID `json:"lease"`
	Until time.Time       `json:"until"`
}

// Kind is leases.renewed.v1.
func (Renewed) Kind() Kind { return KindRenewed }

// Lapsed says that a lease ran out, and what became of its messages.
type Lapsed struct {
	At       time.Time       `json:"at"`
	Lease    streams.LeaseID `json:"lease"`
	Messages []Lapse         `json:"messages"`
}

// Lapse is one message's fate: pending opens its next round, leased holds it
// for its device, failed ends it.
type Lapse struct {
	ID    streams.MessageID `json:"id"`
	Round int               `json:"round"`
	To    streams.State     `json:"to"`
}

// Kind is messages.lapsed.v1.
func (Lapsed) Kind() Kind { return KindLapsed }

// Cancelled says that an operator or a sender took messages back.
type Cancelled struct {
	At       time.Time `json:"at"`
	Messages []Attempt `json:"messages"`
}

// Kind is messages.cancelled.v1.
func (Cancelled) Kind() Kind { return KindCancelled }

// Expired says that the validity of messages ran out before they were sent.
type Expired struct {
	At       time.Time `json:"at"`
	Messages []Attempt `json:"messages"`
}

// Kind is messages.expired.v1.
func (Expired) Kind() Kind { return KindExpired }

// Requeued says that an operator offers messages again, in a next round.
type Requeued struct {
	At       time.Time `json:"at"`
	Until    time.Time `json:"until,omitzero"` // their validity from now on, where they have one
	Messages []Attempt `json:"messages"`
}

// Kind is messages.requeued.v1.
func (Requeued) Kind() Kind { return KindRequeued }

// Reported is what a phone says happened.
type Reported struct {
	At       time.Time        `json:"at,omitzero"` // when it came, by the clock that leases go by
	Device   streams.DeviceID `json:"device,omitzero"`
	Name     string           `json:"name,omitempty"`
	Messages []Report         `json:"messages"`
}

// Report is what a phone says of one message: sent, delivered or failed.
type Report struct {
	ID    streams.MessageID `json:"id"`
	State streams.State     `json:"state"`
	Error string            `json:"error,omitempty"` // at most MaxError bytes
}

// Kind is messages.reported.v1.
func (Reported) Kind() Kind { return KindReported }

// Horizon drops what is older: records and events of messages made before it.
// It tells too what the streams held by then, for no stored time does.
type Horizon struct {
	Before  time.Time `json:"before"`
	At      time.Time `json:"at,omitzero"`       // when it was made, by the clock that ids go by: what is before it in STATUS was stored by then
	Enqueue uint64    `json:"enqueue,omitempty"` // and all of ENQUEUE up to this sequence
}

// Kind is horizon.v1.
func (Horizon) Kind() Kind { return KindHorizon }
