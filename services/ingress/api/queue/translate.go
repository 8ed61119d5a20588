package queue

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
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
	// Limit: the body of a request has at most 4 MiB. Beyond it: 413 body_too_large, before the body is read if
	// its length is announced.
	// Used up by: one request. Hurts: that request alone. Test: TestIngress_Sizes.
	maxBody = 4 << 20 // bytes
	// Limit: a POST queue has at most 1,000 messages, and a POST status 1,000 items. Beyond it: 422
	// too_many_messages; nothing is stored.
	// Used up by: one request. Hurts: that request alone. Test: TestIngress_Sizes.
	maxItems = 1000 // of a POST
	// Limit: a text has at most 1,000 characters. Beyond it: that item is rejected; the others are queued.
	// Used up by: one item of a request. Hurts: that item alone. Test: TestParseQueue_Text.
	maxText = 1000 // characters
	// Limit: the name of a device has at most 15 characters, and no control characters. Beyond it: 422
	// invalid_device.
	// Used up by: one request. Hurts: that request alone. Test: TestParse_Edges.
	maxDevice = 15 // characters

	// Limit: a pull gets at most 20 messages unless it gives a limit. Beyond it: the other messages wait for the
	// next pull.
	// Used up by: one pull. Hurts: nobody. Test: TestParsePull.
	defaultLimit = 20
	// Limit: a pull gets at most 200 messages. Beyond it: a limit above it counts as 200; one below 1 is 422
	// invalid_limit.
	// Used up by: one pull. Hurts: nobody. Test: TestParsePull.
	maxLimit = 200
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

var (
	// Limit: a phone number has 6 to 20 digits, optionally after a +. Beyond it: that item is rejected; the others
	// are queued.
	// Used up by: one item of a request. Hurts: that item alone. Test: TestParse_Edges.
	phoneForm = regexp.MustCompile(`^\+?[0-9]{6,20}$`)
	// Limit: an Idempotency-Key has 1 to 255 printable ASCII characters. Beyond it: 400 invalid_idempotency_key.
	// Used up by: one request. Hurts: that request alone. Test: TestParseKey.
	keyForm = regexp.MustCompile(`^[ -~]{1,255}$`)
)

// queueRequest is what is made of a POST queue: the messages that can be stored,
// and the answer, which lacks only their ids.
type queueRequest struct {
	drafts []messages.Draft
	out    queueOut
}

func parseQueue(body []byte) (queueRequest, error) {
	all, err := decodeQueue(body)
	if err != nil {
		return queueRequest{}, err
	}
	switch {
	case len(all.items) == 0:
		return queueRequest{}, errEmpty
	case len(all.items) > maxItems:
		return queueRequest{}, errTooMany
	}
	r := queueRequest{out: queueOut{Items: []queuedOut{}, Errors: []refusedOut{}}}
	for i, item := range all.items {
		message, wrong := checkMessage(item)
		if wrong != "" {
			r.out.Errors = append(r.out.Errors, refusedOut{i, wrong})
			continue
		}
		phone := item.value.Phone.value
		r.out.Items = append(r.out.Items, queuedOut{Index: i, Phone: phone})
		r.drafts = append(r.drafts, messages.Draft{
			Content: messages.Content{Phone: event.Private(phone), Text: event.Private(message)},
			Lane:    streams.Lane{Priority: streams.Normal, Class: streams.Text},
		})
	}
	r.out.OK, r.out.Queued, r.out.Failed = len(r.drafts) > 0, len(r.drafts), len(r.out.Errors)
	return r, nil
}

func decodeQueue(body []byte) (all queueIn, err error) {
	if bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("[")) {
		if !utf8.Valid(body) {
			return all, errJSON
		}
		return decodeList[messageIn](body)
	}
	var one maybe[messageIn]
	if err := decode(body, &one); err != nil {
		return all, err
	}
	if !one.ok {
		return all, errShape
	}
	all.items = append(all.items, one)
	return all, nil
}

// answer is POST queue's, once the drafts have ids.
func (r queueRequest) answer(ids []streams.MessageID) []byte {
	for i, id := range ids {
		r.out.Items[i].Hash = id
	}
	return httpx.JSON(r.out)
}

// checkMessage gives the text of an item, or says what is wrong with it.
func checkMessage(in maybe[messageIn]) (message, wrong string) {
	if !in.ok {
		return "", "Message must be an object"
	}
	switch phone := in.value.Phone; {
	case phone.wrong:
		return "", "Phone must be a string"
	case phone.value == "":
		return "", "Phone is required"
	case !phoneForm.MatchString(phone.value):
		return "", "Invalid phone format"
	}
	from := in.value.Message
	if from == (text{}) {
		from = in.value.Text
	}
	switch {
	case from.wrong:
		return "", "Message must be a string"
	case from.value == "":
		return "", "Message is required"
	case from.half:
		return "", "Message is not valid Unicode"
	case utf8.RuneCountInString(from.value) > maxText:
		return "", "Message is too long (max 1000 characters)"
	}
	return from.value, ""
}

// parseKey reads the Idempotency-Key header; without it there is no key.
func parseKey(header http.Header, body []byte, r queueRequest) (*messages.Key, error) {
	values := header["Idempotency-Key"]
	if len(values) == 0 {
		return nil, nil
	}
	if len(values) > 1 || !keyForm.MatchString(values[0]) {
		return nil, errKey
	}
	hash := sha256.New()
	hash.Write([]byte("queue\n")) // a client would not understand the answer of another dialect
	hash.Write(body)
	return &messages.Key{
		ID:     "key/" + values[0],
		Hash:   hex.EncodeToString(hash.Sum(nil)),
		Render: func(ids []streams.MessageID) ([]byte, error) { return r.answer(ids), nil },
	}, nil
}

// parsePull reads the query of GET get_messages.
func parsePull(q url.Values) (messages.Pull, error) {
	pull := messages.Pull{Device: q.Get("device"), Limit: defaultLimit, Policy: streams.Retry}
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
		pull.Wait = time.Duration(min(wait, int(messages.MaxWait/time.Second))) * time.Second
	}
	return pull, nil
}

func isDevice(name string) bool {
	return utf8.ValidString(name) && utf8.RuneCountInString(name) <= maxDevice && !strings.ContainsFunc(name, unicode.IsControl)
}

// statusRequest is what is made of a POST status: the reports that can be stored,
// and what is wrong with the others.
type statusRequest struct {
	device    string
	items     []messages.Item
	positions []int // of each item in the request
	problems  []problemOut
}

func parseStatus(body []byte) (statusRequest, error) {
	var in maybe[statusIn]
	if err := decode(body, &in); err != nil {
		return statusRequest{}, err
	}
	device, told := in.value.Device, in.value.Messages
	switch {
	case !in.ok:
		return statusRequest{}, errShape
	case device.wrong, device.half, !isDevice(device.value):
		return statusRequest{}, errDevice
	case !told.ok:
		return statusRequest{}, errMessages
	case len(told.items) == 0:
		return statusRequest{}, errEmpty
	case len(told.items) > maxItems:
		return statusRequest{}, errTooMany
	}
	r := statusRequest{device: device.value}
	for i, item := range told.items {
		hash := item.value.Hash.value
		state, wrong := checkReport(item)
		if wrong != "" {
			r.problems = append(r.problems, problemOut{i, shown(hash), wrong})
			continue
		}
		r.items = append(r.items, messages.Item{ID: hash, State: state})
		r.positions = append(r.positions, i)
	}
	return r, nil
}

// checkReport gives the state that an item reports, or says what is wrong.
func checkReport(in maybe[reportIn]) (state streams.State, wrong string) {
	switch hash, status := in.value.Hash, in.value.Status.value; {
	case !in.ok:
		return 0, "Status update must be an object"
	case hash.wrong:
		return 0, "Hash must be a string"
	case hash.value == "":
		return 0, "Hash is required"
	case status == 2:
		return streams.Delivered, ""
	case status == 3:
		return streams.Failed, ""
	default:
		return 0, "Status must be 2 or 3"
	}
}

// whys says why a report changed nothing.
var whys = map[messages.Why]string{
	messages.Unknown:   "Unknown hash",
	messages.Succeeded: "Message is already reported as success",
	messages.Over:      "Message is cancelled or expired",
	messages.NotHeld:   "Message is not with this device",
}

// answer is POST status's.
func (r statusRequest) answer(reported messages.Reported) statusOut {
	out := statusOut{OK: true, Updated: reported.Updated}
	// Both lists are in the order of the request.
	problems := r.problems
	for _, p := range reported.Problems {
		position := r.positions[p.Index]
		for len(problems) > 0 && problems[0].Index < position {
			out.Errors = append(out.Errors, problems[0])
			problems = problems[1:]
		}
		out.Errors = append(out.Errors, problemOut{position, shown(r.items[p.Index].ID), whys[p.Why]})
	}
	out.Errors = append(out.Errors, problems...)
	return out
}

// shown is a client's hash as the answer repeats it. Ours have 16 characters.
func shown(hash string) string {
	return strings.ToValidUTF8(hash[:min(len(hash), 64)], "") // without what is left of a character
}

// refusal is the answer to a fault.
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
