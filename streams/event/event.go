// Package event defines what is written to the streams: one kind and version
// of JSON each, for ever. A field or a kind may be added; none is renamed,
// removed or reused (docs/events.md).
package event

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
)

// KindHeader is the header of a stream message that names its kind.
const KindHeader = "Trunkline-Kind"

// Kind names what an event is, with its version.
type Kind string

// The kinds of events.
const (
	KindEnqueued  Kind = "message.enqueued.v1"
	KindScheduled Kind = "message.scheduled.v1"
	KindKeyed     Kind = "request.keyed.v1"
	KindBarrier   Kind = "barrier.v1"
	KindFence     Kind = "fence.v1"
	KindReserved  Kind = "ids.reserved.v1"
	KindLeased    Kind = "messages.leased.v1"
	KindRenewed   Kind = "leases.renewed.v1"
	KindLapsed    Kind = "messages.lapsed.v1"
	KindCancelled Kind = "messages.cancelled.v1"
	KindExpired   Kind = "messages.expired.v1"
	KindRequeued  Kind = "messages.requeued.v1"
	KindReported  Kind = "messages.reported.v1"
	KindHorizon   Kind = "horizon.v1"

	KindPublished  Kind = "release.published.v1"
	KindActivated  Kind = "release.activated.v1"
	KindWithdrawn  Kind = "release.withdrawn.v1"
	KindDownloaded Kind = "release.downloaded.v1"
)

// Event is one of this package's structs.
type Event interface {
	Kind() Kind
}

// Message makes the stream message that carries e on a subject.
func Message(subject string, e Event) (*nats.Msg, error) {
	data, err := Encode(e)
	if err != nil {
		return nil, err
	}
	m := nats.NewMsg(subject)
	m.Header[KindHeader] = []string{string(e.Kind())}
	m.Data = data
	return m, nil
}

// Encode gives an event's bytes. What HTML escapes stands for itself: an event is no page, and a text of such characters
// would take six times its bytes. (Events of older versions have the escapes, and are read the same.)
func Encode(e Event) ([]byte, error) {
	var body any = e
	if w, ok := e.(wired); ok {
		body = w.wire()
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return nil, fmt.Errorf("encode %s: %w", e.Kind(), err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Decode reads the bytes of an event of kind E. Fields it does not know are
// ignored: they come from a later version.
func Decode[E Event](data []byte) (E, error) {
	var e E
	if err := json.Unmarshal(data, &e); err != nil {
		// The decoder's own words may quote the text.
		return e, fmt.Errorf("decode %s: not the JSON of this kind", e.Kind())
	}
	return e, nil
}

// wired is an event whose bytes hold what its fields do not print.
type wired interface{ wire() any }
