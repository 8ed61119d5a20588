package dispatcher

import (
	"errors"
	"time"

	"github.com/tidwall/gjson"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/streams"
)

// head is what is folded of an accepted message. It stands before what only the phone reads.
type head struct {
	id       streams.MessageID
	group    streams.MessageID
	name     string
	until    time.Time
	due      time.Time
	released bool
	lane     streams.Lane // in the event of a scheduled message, else in its subject
}

// told is when the event was stored, as far as it tells that itself: the
// engine's clock may have been anywhere.
func (h *head) told() time.Time {
	if h.released {
		return clock.Later(h.id.Time(), h.due)
	}
	return h.id.Time()
}

// readHead reads it. A decoder would read the text too, which takes longer than everything else in a fold.
func readHead(data []byte) (h head, err error) {
	gjson.ParseBytes(data).ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "id":
			h.id, err = streams.ParseMessageID(value.Str)
		case "group":
			h.group, err = streams.ParseMessageID(value.Str)
		case "name":
			h.name = value.Str
		case "until":
			h.until, err = time.Parse(time.RFC3339, value.Str)
		case "due":
			h.due, err = time.Parse(time.RFC3339, value.Str)
		case "lane":
			h.lane, err = streams.ParseLane(value.Str)
		case "released":
			h.released = value.Bool()
		case "phone":
			return false
		}
		return err == nil
	})
	if err == nil && h.id == 0 {
		err = errors.New("it has no id")
	}
	return h, err
}
