package smsgate

import (
	"cmp"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const (
	// Limit: the body of a message has at most 4 MiB. Beyond it: 413.
	// Used up by: one request. Hurts: that request alone. Test: TestBodies.
	maxBody = 4 << 20 // bytes of a message's
	// Limit: any other body has at most 64 KiB. Beyond it: 413.
	// Used up by: one request. Hurts: that request alone. Test: TestBodies.
	maxSmall = 64 << 10 // bytes of any other
	// Limit: the id of a message or a webhook has at most 36 characters, none of | / ? # in it. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestParseSend_Rules.
	maxID      = 36       // characters, of a message or a webhook
	maxNumbers = maxTexts // of a message
	// Limit: a number has at most 128 characters. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestParseSend_Rules.
	maxNumber = 128 // characters
	// Limit: a text, or data as base64, has at most 65,535 characters; data at least 4. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestParseSend_Rules.
	maxText = 65535 // characters, also of data as base64
	minData = 4     // characters of data as base64
	// Limit: a port is 1 to 65,535. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestParseSend_Rules.
	maxPort = 65535
	// Limit: a SIM is 1 to 3. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestParseSend_Rules.
	maxSIM = 3
	// Limit: a ttl is 5 s or more. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestParseSend_Rules.
	minTTL  = 5   // seconds
	express = 100 // the priority from which on a message goes before the others
	// maxContent bounds the bytes that the texts of one request take in the stream, where every recipient has its own
	// copy. So a group always fits into one answer.
	//
	// Limit: a text, times its recipients, takes at most 3 MiB. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestParseSend_LargeContent.
	maxContent = 3 << 20 // bytes
	// Limit: deviceActiveWithin and a ttl are at most 1,048,576 h, more than a century. Beyond it: more counts as
	// that.
	// Used up by: one request. Hurts: nobody. Test: TestPick.
	maxHours = 1 << 20 // that a query or a ttl may mean, which is more than a century
)

// The names of states in this dialect.
const (
	pending    = "Pending"
	cancelling = "Cancelling" // a message on its way to Cancelled, which it is here at once
	processed  = "Processed"
	sent       = "Sent"
	delivered  = "Delivered"
	failed     = "Failed"
	cancelled  = "Cancelled"
)

var words = map[streams.State]string{
	streams.Scheduled: pending, streams.Pending: pending, streams.Leased: processed, streams.Sent: sent,
	streams.Delivered: delivered, streams.Failed: failed, streams.Expired: failed, streams.Cancelled: cancelled,
}

// The texts that clients know.
const (
	unauthorized = "Unauthorized"
	notFound     = "message not found"
	duplicate    = "message with the same ID already exists"
	notPending   = "message is not pending"
	tooLate      = "TTL expired"
	noInbox      = "Inbox API is not implemented yet"
	noLogs       = "For privacy reasons, device's logs are not accessible through Cloud server"
)

// invalid is the fault for a body that breaks a rule.
func invalid(why string) error {
	return fault.New(fault.Invalid, "invalid_request", "failed to validate: "+why)
}

var (
	errUnique   = fault.New(fault.Invalid, "duplicate_numbers", "phone numbers must be unique")
	errNoDevice = fault.New(fault.Invalid, "no_device", "failed to select device: record not found")
)

// order is what is made of a POST of a message.
type order struct {
	messages.Enqueue
	device string    // that is to send it; empty: any
	since  time.Time // the device must have been seen after that; zero: at any time
}

func parseSend(body []byte, q url.Values, region string, now time.Time) (order, error) {
	var o order
	skip, err := flag(q, "skipPhoneValidation")
	if err != nil {
		return o, err
	}
	hours, err := number(q, "deviceActiveWithin", 0, 0)
	if err != nil {
		return o, err
	}
	if hours > 0 {
		o.since = now.Add(-time.Duration(min(hours, maxHours)) * time.Hour)
	}
	var in sendIn
	if err := decode(body, &in); err != nil {
		return o, err
	}
	if err := in.check(); err != nil {
		return o, err
	}
	if o.Due, o.Until, err = in.times(now); err != nil {
		return o, err
	}
	content, err := in.content()
	if err != nil {
		return o, err
	}
	numbers := []string(in.PhoneNumbers)
	if !skip && !in.IsEncrypted {
		if numbers, err = normal(numbers, region); err != nil {
			return o, err
		}
	}
	o.device = value(in.DeviceID)
	o.Group, o.Name = true, value(in.ID)
	seen := map[string]bool{}
	for _, one := range numbers {
		if seen[one] {
			return o, errUnique
		}
		seen[one] = true
		content.Phone = event.Private(one)
		o.Drafts = append(o.Drafts, messages.Draft{Content: content, Lane: lane(content)})
	}
	return o, nil
}

// check checks the fields that can be judged one by one.
func (in sendIn) check() error {
	switch id := value(in.ID); {
	case id != "" && !isID(id):
		return invalid("id must have at most 36 characters, without |, /, ?, # and control characters")
	case len(in.PhoneNumbers) == 0 || len(in.PhoneNumbers) > maxNumbers:
		return invalid("phoneNumbers must be 1 to 100 numbers")
	case in.SIMNumber != nil && (*in.SIMNumber < 1 || *in.SIMNumber > maxSIM):
		return invalid("simNumber must be 1 to 3")
	// Limit: a priority is -128 to 127. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestParseSend_Rules.
	case in.Priority < -128 || in.Priority > 127:
		return invalid("priority must be -128 to 127")
	}
	for _, one := range in.PhoneNumbers {
		if one == "" || utf8.RuneCountInString(one) > maxNumber {
			return invalid("phoneNumbers must have 1 to 128 characters each")
		}
	}
	return nil
}

// isID says whether a client's id can stand in a path, and in what the app makes of it.
func isID(id string) bool {
	return utf8.RuneCountInString(id) <= maxID && !strings.ContainsAny(id, "|/?#") && !strings.ContainsFunc(id, unicode.IsControl)
}

// content is what all messages of the request have in common: everything but the number.
func (in sendIn) content() (messages.Content, error) {
	c := messages.Content{
		Encrypted: in.IsEncrypted, SIM: value(in.SIMNumber), NoReceipt: in.Receipt != nil && !*in.Receipt, Priority: in.Priority,
	}
	if in.TextMessage != nil && value(in.Message) != "" || in.DataMessage != nil && (in.TextMessage != nil || value(in.Message) != "") {
		return c, invalid("only one of message, textMessage and dataMessage may be given")
	}
	text := value(in.Message)
	switch {
	case in.DataMessage != nil:
		if err := in.DataMessage.check(in.IsEncrypted); err != nil {
			return c, err
		}
		c.Data, c.Port, text = event.Private(in.DataMessage.Data), in.DataMessage.Port, in.DataMessage.Data
	case in.TextMessage != nil:
		text = in.TextMessage.Text
		fallthrough
	default:
		switch n := utf8.RuneCountInString(text); {
		case n == 0 && in.TextMessage == nil:
			return c, invalid("one of message, textMessage and dataMessage must be given")
		case n == 0 || n > maxText:
			return c, invalid("the text must have 1 to 65535 characters")
		}
		c.Text = event.Private(text)
	}
	if len(in.PhoneNumbers) > 1 && len(in.PhoneNumbers)*len(httpx.JSON(text)) > maxContent {
		return c, invalid("the text is too long for so many phoneNumbers")
	}
	return c, nil
}

func (d dataIn) check(encrypted bool) error {
	switch n := utf8.RuneCountInString(d.Data); {
	case n < minData || n > maxText:
		return invalid("dataMessage.data must have 4 to 65535 characters")
	case d.Port < 1 || d.Port > maxPort:
		return invalid("dataMessage.port must be 1 to 65535")
	case encrypted: // then it is no base64
		return nil
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(d.Data); err != nil || strings.ContainsAny(d.Data, "\r\n") {
		return invalid("dataMessage.data must be base64")
	}
	return nil
}

// times gives when the messages are due, and when it is too late for them.
func (in sendIn) times(now time.Time) (due, until time.Time, err error) {
	if in.ScheduleAt != nil {
		if due, err = time.Parse(time.RFC3339, *in.ScheduleAt); err != nil {
			return due, until, invalid("scheduleAt must be a time as in RFC 3339")
		}
		if !due.After(now) {
			return due, until, invalid("scheduleAt must be in the future")
		}
	}
	switch {
	case in.TTL != nil && in.ValidUntil != nil:
		return due, until, invalid("only one of ttl and validUntil may be given")
	case in.TTL != nil && *in.TTL < minTTL:
		return due, until, invalid("ttl must be 5 seconds or more")
	case in.TTL != nil:
		// The backend rejects a validity that is too long.
		until = now.Add(time.Duration(min(*in.TTL, maxHours*3600)) * time.Second)
	case in.ValidUntil != nil:
		if until, err = time.Parse(time.RFC3339, *in.ValidUntil); err != nil {
			return due, until, invalid("validUntil must be a time as in RFC 3339")
		}
		if until.Before(streams.Epoch) {
			until = streams.Epoch // long over; the zero time would mean no validity at all
		}
	}
	if !until.IsZero() && due.After(until) {
		return due, until, invalid("scheduleAt must not be after the message's end")
	}
	return due, until, nil
}

func lane(c messages.Content) streams.Lane {
	l := streams.Lane{Priority: streams.Normal, Class: streams.Text}
	switch {
	case c.Priority >= express:
		l.Priority = streams.High
	case c.Priority < 0:
		l.Priority = streams.Low
	}
	if c.Data != "" || c.Encrypted {
		l.Class = streams.Other
	}
	return l
}

// picky says whether the request takes only certain devices.
func (o order) picky() bool { return o.device != "" || !o.since.IsZero() }

// pick finds the device that the request asks for among those of the account.
func (o order) pick(devices []streams.Device) error {
	for _, d := range devices {
		switch {
		case o.device != "" && d.ID.String() != o.device, !o.since.IsZero() && !d.LastSeen.After(o.since):
			continue
		case o.device != "":
			for i := range o.Drafts {
				o.Drafts[i].Lane.Target = d.ID
			}
		}
		return nil
	}
	return errNoDevice
}

// group is the accepted group in its first state.
func (o order) group(ids []streams.MessageID) messages.Group {
	g := messages.Group{ID: ids[0], Name: o.Name, State: streams.Pending, Device: o.Drafts[0].Lane.Target}
	for i, d := range o.Drafts {
		g.Messages = append(g.Messages, messages.Member{ID: ids[i], Content: d.Content, State: streams.Pending})
	}
	return g
}

// stamp is a time with exactly three digits behind the second: the app would take more digits for more milliseconds.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// message is a group's answer.
func (f form) message(g messages.Group, content bool) messageOut {
	created := stamp(g.ID.Time())
	out := messageOut{
		ID: cmp.Or(g.Name, g.ID.String()), State: words[g.State], CreatedAt: created, DeviceID: device(g.Device),
		Recipients: []recipientOut{}, States: map[string]string{pending: created},
	}
	for _, m := range g.Messages {
		out.Recipients = append(out.Recipients, f.recipient(m))
		out.IsEncrypted = out.IsEncrypted || m.Encrypted
		for _, step := range m.Steps {
			word, at := words[step.State], stamp(step.At)
			if first, ok := out.States[word]; !ok || at < first {
				out.States[word] = at
			}
		}
		switch {
		case !content:
		case m.Data != "":
			out.DataMessage = &dataOut{m.Data.Reveal(), m.Port}
		case m.Text != "":
			out.TextMessage = &textOut{m.Text.Reveal()}
		}
	}
	return out
}

func (f form) recipient(m messages.Member) recipientOut {
	out := recipientOut{PhoneNumber: m.Phone.Reveal(), State: words[m.State]}
	switch {
	case m.State == streams.Expired:
		out.Error = httpx.JSON(tooLate)
	case m.State == streams.Failed && m.Reason != "":
		out.Error = httpx.JSON(m.Reason)
	case f.nulls:
		out.Error = httpx.JSON(nil)
	}
	return out
}

// device is a device's id where it may be none.
func device(id streams.DeviceID) string {
	if id == 0 {
		return ""
	}
	return id.String()
}

// value is what a pointer points to, or nothing.
func value[T any](p *T) T {
	if p == nil {
		var none T
		return none
	}
	return *p
}

// refusal is the answer to a fault.
func refusal(f *fault.Error) (status int, body faultOut) {
	body = faultOut{f.Text}
	switch f.Kind {
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.TooLarge:
		status = http.StatusRequestEntityTooLarge
	case fault.Unauthenticated:
		status, body = http.StatusUnauthorized, faultOut{unauthorized}
	case fault.Forbidden:
		status = http.StatusForbidden
	case fault.NotFound:
		status, body = http.StatusNotFound, faultOut{notFound}
	case fault.Conflict:
		status = http.StatusConflict
		switch f.Code {
		case "duplicate_id":
			body = faultOut{duplicate}
		case "not_pending":
			body = faultOut{notPending}
		}
	case fault.Mismatch:
		status = http.StatusUnprocessableEntity
	case fault.LimitExceeded, fault.RateLimited:
		status = http.StatusTooManyRequests
	case fault.Full, fault.Unavailable, fault.UnknownOutcome:
		status = http.StatusServiceUnavailable
	default:
		status, body = http.StatusInternalServerError, faultOut{"Internal error"}
	}
	return status, body
}
