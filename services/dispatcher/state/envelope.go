package state

import (
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// Envelope is what is folded of an accepted message: the first fields of its
// event, before those that only the phone reads.
type Envelope struct {
	ID       streams.MessageID
	Group    streams.MessageID // the first message of its group; zero: it is a group alone
	Name     string            // the sender's id of the group
	Until    time.Time         // its validity; zero: without end
	Due      time.Time         // when it is or was due; zero: it was not scheduled
	Released bool              // it was scheduled, and is due
	Lane     streams.Lane      // of a scheduled message alone: others have it in their subject
}

// StoredAt is when the event was stored, as far as its own content says so: the
// engine's clock may have been anywhere.
func (h *Envelope) StoredAt() time.Time {
	if h.Released {
		return clock.Later(h.ID.Time(), h.Due)
	}
	return h.ID.Time()
}

// ReadEnvelope reads the envelope of an Enqueued or Scheduled event. A decoder
// would read the text too, which takes longer than everything else in a fold.
func ReadEnvelope(data []byte) (h Envelope, err error) {
	gjson.ParseBytes(data).ForEach(func(key, value gjson.Result) bool {
		if key.Str == "phone" {
			return false
		}
		err = h.read(key.Str, value)
		return err == nil
	})
	if err == nil && h.ID == 0 {
		err = errors.New("it has no id")
	}
	return h, err
}

// read takes a field into the envelope, unless it does not belong there.
func (h *Envelope) read(key string, value gjson.Result) (err error) {
	switch key {
	case "id":
		h.ID, err = streams.ParseMessageID(value.Str)
	case "group":
		h.Group, err = streams.ParseMessageID(value.Str)
	case "name":
		h.Name = value.Str
	case "until":
		h.Until, err = time.Parse(time.RFC3339, value.Str)
	case "due":
		h.Due, err = time.Parse(time.RFC3339, value.Str)
	case "lane":
		h.Lane, err = streams.ParseLane(value.Str)
	case "released":
		h.Released = value.Bool()
	}
	return err
}

// CheckEnvelope gives the envelope of an Enqueued event that is to be handed out.
// It fails where event.Decode fails. It decodes the event only if a look at its
// fields leaves a doubt, which is faster.
func CheckEnvelope(data []byte) (Envelope, error) {
	if h, sound := checked(data); sound {
		return h, nil
	}
	e, err := event.Decode[event.Enqueued](data)
	return Envelope{ID: e.ID, Group: e.Group, Name: e.Name, Until: e.Until, Due: e.Due, Released: e.Released}, err
}

// kinds are the types of JSON values that a decoder takes for the fields of an
// Enqueued event.
var kinds = map[string]gjson.Type{
	"id": gjson.String, "group": gjson.String, "name": gjson.String, "until": gjson.String, "due": gjson.String, "released": gjson.True,
	"phone": gjson.String, "text": gjson.String, "data": gjson.String, "month": gjson.String, "grant": gjson.String,
	"port": gjson.Number, "sim": gjson.Number, "priority": gjson.Number, "encrypted": gjson.True, "no_receipt": gjson.True,
}

// checked reads an envelope, and says whether the event has only fields that are
// surely decoded: known ones with values as they are written.
func checked(data []byte) (h Envelope, sound bool) {
	if !gjson.ValidBytes(data) {
		return h, false
	}
	sound = true
	gjson.ParseBytes(data).ForEach(func(key, value gjson.Result) bool {
		kind, known := kinds[key.Str]
		sound = known && value.Type == kind
		if sound && kind == gjson.Number {
			_, err := strconv.ParseInt(value.Raw, 10, 32)
			sound = err == nil
		}
		if sound {
			err := h.read(key.Str, value)
			sound = err == nil && utf8.ValidString(h.Name) // a decoder replaces what is not UTF-8
		}
		return sound
	})
	return h, sound && h.ID != 0
}
