package queueapi

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/jsonread"
	"github.com/trunkline-sms/trunkline/services/ingress/core"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const (
	maxBody   = 4 << 20 // bytes
	maxItems  = 1000    // of a POST
	maxText   = 1000    // characters
	maxDevice = 15      // characters
	maxKey    = 255     // characters

	defaultLimit = 20
	maxLimit     = 200
)

// Faults of the whole request. Those of codeJSON and codeKey are 400, the
// others 422.
const (
	codeJSON = "invalid_json"
	codeKey  = "invalid_idempotency_key"
)

var (
	errJSON     = fault.New(fault.Invalid, codeJSON, "The body is not valid JSON")
	errShape    = fault.New(fault.Invalid, codeJSON, "The body must be a JSON object or array as documented")
	errKey      = fault.New(fault.Invalid, codeKey, "Idempotency-Key must be 1 to 255 printable characters")
	errEmpty    = fault.New(fault.Invalid, "no_messages", "At least one message is required")
	errTooMany  = fault.New(fault.Invalid, "too_many_messages", "At most 1000 messages are allowed in one request")
	errMessages = fault.New(fault.Invalid, "invalid_messages", "messages must be an array")
	errLimit    = fault.New(fault.Invalid, "invalid_limit", "limit must be a number from 1 to 200")
	errWait     = fault.New(fault.Invalid, "invalid_wait", "wait must be a number of seconds from 0 to 30")
	errDevice   = fault.New(fault.Invalid, "invalid_device", "device must be a text of at most 15 characters")
)

func jsonFault(err error) error {
	if errors.Is(err, jsonread.ErrSyntax) {
		return errJSON.With(err)
	}
	return err
}

// queueIn is what POST queue asks for: the messages that can be stored, and
// what is wrong with the others.
type queueIn struct {
	drafts []core.Draft
	items  []queuedOut // of each draft, without its hash
	errors []errorOut
}

func parseQueue(body []byte) (queueIn, error) {
	items, err := readQueue(body)
	switch {
	case err != nil:
		return queueIn{}, jsonFault(err)
	case len(items) == 0:
		return queueIn{}, errEmpty
	case len(items) > maxItems:
		return queueIn{}, errTooMany
	}
	in := queueIn{drafts: make([]core.Draft, 0, len(items)), items: make([]queuedOut, 0, len(items))}
	for i, item := range items {
		text, wrong := checkMessage(item)
		if wrong != "" {
			in.errors = append(in.errors, errorOut{i, wrong})
			continue
		}
		in.items = append(in.items, queuedOut{index: i, phone: item.phone.text})
		in.drafts = append(in.drafts, core.Draft{
			Phone: event.Private(item.phone.text),
			Text:  event.Private(text),
			Lane:  streams.Lane{Priority: streams.Normal, Class: streams.Text},
		})
	}
	return in, nil
}

// answer is POST queue's, once the drafts have ids.
func (in queueIn) answer(ids []streams.MessageID) []byte {
	size := 80
	for i, id := range ids {
		in.items[i].hash = id
		size += 64 + len(in.items[i].phone)
	}
	return appendQueued(make([]byte, 0, size+80*len(in.errors)), in.items, in.errors)
}

// checkMessage gives the text of an item, or says what is wrong with it.
func checkMessage(m messageIn) (text, wrong string) {
	if !m.isObject {
		return "", "Message must be an object"
	}
	switch phone := m.phone; {
	case phone.kind == jsonread.None, phone.kind == jsonread.String && phone.text == "":
		return "", "Phone is required"
	case phone.kind != jsonread.String:
		return "", "Phone must be a string"
	case !isPhone(phone.text):
		return "", "Invalid phone format"
	}
	from := m.message
	if from.kind == jsonread.None || from.kind == jsonread.String && from.text == "" {
		from = m.text
	}
	switch {
	case from.kind == jsonread.None, from.kind == jsonread.String && from.text == "":
		return "", "Message is required"
	case from.kind != jsonread.String:
		return "", "Message must be a string"
	case !from.whole:
		return "", "Message is not valid Unicode"
	case len(from.text) > maxText && utf8.RuneCountInString(from.text) > maxText:
		return "", "Message is too long (max 1000 characters)"
	}
	return from.text, ""
}

// isPhone holds for 6 to 20 digits, optionally after a +.
func isPhone(text string) bool {
	if text[0] == '+' {
		text = text[1:]
	}
	if len(text) < 6 || len(text) > 20 {
		return false
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return true
}

// parseKey reads the Idempotency-Key header; without it there is no key.
func parseKey(header http.Header, body []byte, in queueIn) (*core.Key, error) {
	values := header["Idempotency-Key"]
	if len(values) == 0 {
		return nil, nil
	}
	id := values[0]
	if len(values) > 1 || id == "" || len(id) > maxKey {
		return nil, errKey
	}
	for i := range len(id) {
		if id[i] < ' ' || id[i] > '~' {
			return nil, errKey
		}
	}
	hash := sha256.New()
	hash.Write([]byte("queue\n")) // another dialect's answer would not be understood
	hash.Write(body)
	return &core.Key{
		ID:     "key/" + id,
		Hash:   hex.EncodeToString(hash.Sum(nil)),
		Render: func(ids []streams.MessageID) ([]byte, error) { return in.answer(ids), nil },
	}, nil
}

// parsePull reads the query of GET get_messages.
func parsePull(q url.Values) (core.Pull, error) {
	pull := core.Pull{Device: q.Get("device"), Limit: defaultLimit, Policy: streams.Retry}
	if !isDevice(pull.Device) {
		return pull, errDevice
	}
	if text := q.Get("limit"); text != "" {
		limit, err := strconv.Atoi(text)
		if err != nil && !errors.Is(err, strconv.ErrRange) || limit < 1 {
			return pull, errLimit
		}
		pull.Limit = min(limit, maxLimit)
	}
	if text := q.Get("wait"); text != "" {
		wait, err := strconv.Atoi(text)
		if err != nil && !errors.Is(err, strconv.ErrRange) || wait < 0 {
			return pull, errWait
		}
		pull.Wait = time.Duration(min(wait, int(core.MaxWait/time.Second))) * time.Second
	}
	return pull, nil
}

func isDevice(name string) bool {
	if !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxDevice {
		return false
	}
	for _, char := range name {
		if unicode.IsControl(char) {
			return false
		}
	}
	return true
}

// reportsIn is what POST status asks for: what can be reported, and what is
// wrong with the rest.
type reportsIn struct {
	device   string
	items    []core.Item
	places   []int // of each item in the request
	problems []problemOut
}

func parseStatus(body []byte) (reportsIn, error) {
	in, err := readStatus(body)
	switch {
	case err != nil:
		return reportsIn{}, jsonFault(err)
	case in.device.kind != jsonread.None && (in.device.kind != jsonread.String || !in.device.whole || !isDevice(in.device.text)):
		return reportsIn{}, errDevice
	case !in.isArray:
		return reportsIn{}, errMessages
	case len(in.messages) == 0:
		return reportsIn{}, errEmpty
	case len(in.messages) > maxItems:
		return reportsIn{}, errTooMany
	}
	out := reportsIn{device: in.device.text}
	for i, m := range in.messages {
		state, wrong := checkReport(m)
		if wrong != "" {
			out.problems = append(out.problems, problemOut{i, shown(m.hash.text), wrong})
			continue
		}
		out.items = append(out.items, core.Item{ID: m.hash.text, State: state})
		out.places = append(out.places, i)
	}
	return out, nil
}

// checkReport gives the state that an item reports, or says what is wrong.
func checkReport(in reportIn) (state streams.State, wrong string) {
	switch {
	case !in.isObject:
		return 0, "Status update must be an object"
	case in.hash.kind == jsonread.None, in.hash.kind == jsonread.String && in.hash.text == "":
		return 0, "Hash is required"
	case in.hash.kind != jsonread.String:
		return 0, "Hash must be a string"
	case in.status == 2:
		return streams.Delivered, ""
	case in.status == 3:
		return streams.Failed, ""
	default:
		return 0, "Status must be 2 or 3"
	}
}

// whys says why a report changed nothing.
var whys = map[core.Why]string{
	core.Unknown:   "Unknown hash",
	core.Succeeded: "Message is already reported as success",
	core.Over:      "Message is cancelled or expired",
	core.NotHeld:   "Message is not with this device",
}

// answer is POST status's.
func (in reportsIn) answer(reported core.Reported) updatedOut {
	out := updatedOut{OK: true, Updated: reported.Updated}
	// Both lists are in the order of the request.
	problems := in.problems
	for _, p := range reported.Problems {
		place := in.places[p.Index]
		for len(problems) > 0 && problems[0].Index < place {
			out.Errors = append(out.Errors, problems[0])
			problems = problems[1:]
		}
		out.Errors = append(out.Errors, problemOut{place, shown(in.items[p.Index].ID), whys[p.Why]})
	}
	out.Errors = append(out.Errors, problems...)
	return out
}

// shown is a client's hash as it is given back: ours have 16 characters.
func shown(hash string) string {
	const enough = 64
	if len(hash) <= enough {
		return hash
	}
	end := enough
	for !utf8.RuneStart(hash[end]) {
		end--
	}
	return hash[:end]
}

// refusal is what a fault becomes.
func refusal(f *fault.Error) (status int, body faultOut) {
	body = faultOut{Error: f.Text, Code: f.Code}
	switch f.Kind {
	case fault.Invalid:
		status = http.StatusUnprocessableEntity
		if f.Code == codeJSON || f.Code == codeKey || f.Code == "body_unreadable" {
			status = http.StatusBadRequest
		}
	case fault.TooLarge:
		status = http.StatusRequestEntityTooLarge
	case fault.Unauthenticated:
		status, body.Code = http.StatusUnauthorized, ""
	case fault.Forbidden:
		status = http.StatusForbidden
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Conflict:
		status = http.StatusConflict
	case fault.Mismatch:
		status = http.StatusUnprocessableEntity
	case fault.LimitExceeded:
		status = http.StatusTooManyRequests
		body = faultOut{"SMS limit exceeded for this month", "limit_exceeded", &f.Limit, &f.Used}
	case fault.RateLimited:
		status = http.StatusTooManyRequests
	case fault.Full, fault.Unavailable, fault.UnknownOutcome:
		status = http.StatusServiceUnavailable
	default:
		status = http.StatusInternalServerError
	}
	return status, body
}
