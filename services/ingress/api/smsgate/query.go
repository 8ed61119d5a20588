package smsgate

import (
	"net/url"
	"strconv"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
	"github.com/trunkline-sms/trunkline/streams"
)

// maxLimit is the most messages of a list.
//
// Limit: a list gives at most 100 messages. Beyond it: 400.
// Used up by: one request. Hurts: that request alone. Test: TestParseList.
const maxLimit = 100

// wrongQuery is the fault for a query that cannot be read.
func wrongQuery(why string) error {
	return fault.New(fault.Invalid, "invalid_query", "failed to parse query: "+why)
}

// parseList reads the query of GET messages. nothing is true if no message can match it.
func (f form) parseList(q url.Values, now time.Time) (b messages.Browse, nothing bool, err error) {
	if b.From, err = at(q, "from", now); err != nil {
		return b, false, err
	}
	if b.To, err = at(q, "to", now); err != nil {
		return b, false, err
	}
	if b.Limit, err = number(q, "limit", f.limit, 1); err != nil {
		return b, false, err
	}
	if b.Limit > maxLimit {
		return b, false, wrongQuery("limit must be a number from 1 to 100")
	}
	offset := "offset"
	if f.skip && q.Get("skip") != "" {
		offset = "skip"
	}
	if b.Offset, err = number(q, offset, 0, 0); err != nil {
		return b, false, err
	}
	if b.Content, err = flag(q, "includeContent"); err != nil {
		return b, false, err
	}
	if text := q.Get("deviceId"); text != "" {
		if b.Device.UnmarshalText([]byte(text)) != nil {
			return b, false, wrongQuery("deviceId must be a device's id")
		}
		nothing = b.Device == 0
	}
	switch q.Get("sort") {
	case "created_at":
		b.Oldest = true
	case "", "-created_at":
	default:
		return b, false, wrongQuery("sort must be created_at or -created_at")
	}
	if word := q.Get("state"); word != "" {
		for _, s := range streams.States() {
			if words[s] == word {
				b.States = append(b.States, s)
			}
		}
		if len(b.States) == 0 && word != cancelling {
			return b, false, wrongQuery("state must be Pending, Cancelling, Cancelled, Processed, Sent, Delivered or Failed")
		}
		nothing = nothing || len(b.States) == 0
	}
	return b, nothing, nil
}

// at is a time in a query; zero if there is none. A time before the epoch, or more than a day ahead, is moved there, so
// that it can be counted in milliseconds: there are no messages beyond.
func at(q url.Values, name string, now time.Time) (time.Time, error) {
	text := q.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, wrongQuery(name + " must be a time as in RFC 3339, with + written as %2B")
	}
	if latest := now.Add(24 * time.Hour); t.After(latest) {
		t = latest
	}
	if t.Before(streams.Epoch) {
		t = streams.Epoch
	}
	return t, nil
}

// number is a number in a query, at least least; otherwise if it is not given.
func number(q url.Values, name string, otherwise, least int) (int, error) {
	text := q.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		return 0, wrongQuery(name + " must be a number from " + strconv.Itoa(least))
	}
	return n, nil
}

func flag(q url.Values, name string) (bool, error) {
	text := q.Get(name)
	if text == "" {
		return false, nil
	}
	set, err := strconv.ParseBool(text)
	if err != nil {
		return false, wrongQuery(name + " must be true or false")
	}
	return set, nil
}
