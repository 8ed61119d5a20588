package state

import (
	"errors"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/streams"
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
		switch key.Str {
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
		case "phone":
			return false
		}
		return err == nil
	})
	if err == nil && h.ID == 0 {
		err = errors.New("it has no id")
	}
	return h, err
}

// CheckEnvelope is ReadEnvelope for an event that is to be handed out.
func CheckEnvelope(data []byte) (Envelope, error) {
	if !gjson.ValidBytes(data) {
		return Envelope{}, errors.New("it is no JSON")
	}
	return ReadEnvelope(data)
}
