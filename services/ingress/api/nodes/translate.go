package nodes

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const (
	// Limit: the body of a request has at most 64 KiB. Beyond it: 413.
	// Used up by: one request. Hurts: that request alone. Test: TestSend_Refused.
	maxBody = 64 << 10 // bytes
	// Limit: a request has 1 to 100 numbers, no two of them the same. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestDrafts.
	maxNumbers = 100 // of a request
	// Limit: a text has at most 1,000 characters. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestDrafts.
	maxText = 1000 // characters

	defaultPriority = 1
	highPriority    = 4 // and above goes before the others
	// Limit: a priority is 1 to 5. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestDrafts.
	maxPriority = 5

	// timeForm is RFC 3339 in seconds, of a time in UTC.
	timeForm = "2006-01-02T15:04:05Z"
)

// Faults of a request. No client sees their code.
var (
	errJSON       = invalid("The body is not valid JSON")
	errShape      = invalid("The body must be a JSON object as documented")
	errLogin      = invalid("Username and password are required")
	errNumbers    = invalid("At least one phone number is required")
	errMany       = invalid("At most 100 phone numbers are allowed in one request")
	errNumber     = invalid("A phone number must have 6 to 20 digits, optionally after a +")
	errTwice      = invalid("A phone number is given twice")
	errMessage    = invalid("Message is required")
	errTooLong    = invalid("Message is too long (max 1000 characters)")
	errHalf       = invalid("The body is not valid Unicode")
	errPriority   = invalid("Priority must be a number from 1 to 5")
	errName       = invalid("deviceUsername must be a string")
	errPassword   = invalid("password must be a string")
	errNumberList = invalid("phoneNumbers must be an array of strings")
	errText       = invalid("message must be a string")
)

func invalid(text string) *fault.Error { return fault.New(fault.Invalid, "invalid_request", text) }

// wrongs are the texts for fields that hold a value of another type.
var wrongs = map[string]*fault.Error{"phoneNumbers": errNumberList, "message": errText, "priority": errPriority}

// Limit: a phone number has 6 to 20 digits, optionally after a +. Beyond it: 400.
// Used up by: one request. Hurts: that request alone. Test: TestDrafts.
var phoneForm = regexp.MustCompile(`^\+?[0-9]{6,20}$`)

// sendRequest is what a POST send-sms says, and what is wrong with it. Only a caller that may send is told.
type sendRequest struct {
	sendIn
	wrong error
}

// parse reads a body as far as the login.
func parse(body []byte) (r sendRequest, err error) {
	r.wrong, err = decode(body, &r.sendIn)
	if err == nil && (r.DeviceUsername == "" || r.Password == "") {
		err = errLogin
	}
	return r, err
}

// decode reads a body, and says what is wrong with a field other than the login. The decoder's own text may quote the
// body, so it is not passed on.
func decode(body []byte, to *sendIn) (wrong, err error) {
	if !utf8.Valid(body) {
		return nil, errHalf
	}
	err = json.Unmarshal(body, to)
	var other *json.UnmarshalTypeError
	switch {
	case errors.As(err, &other) && other.Field == "deviceUsername":
		return nil, errName
	case other != nil && other.Field == "password":
		return nil, errPassword
	case other != nil && wrongs[other.Field] != nil:
		return wrongs[other.Field], nil
	case other != nil:
		return nil, errShape
	case err != nil:
		return nil, errJSON
	case httpx.HasHalf(body):
		return errHalf, nil
	}
	return nil, nil
}

// drafts gives the messages of a request to a device; zero: to any.
func (r sendRequest) drafts(target streams.DeviceID) ([]messages.Draft, error) {
	text := r.Message.Reveal()
	priority := defaultPriority
	if r.Priority != nil {
		priority = *r.Priority
	}
	switch {
	case r.wrong != nil:
		return nil, r.wrong
	case len(r.PhoneNumbers) == 0:
		return nil, errNumbers
	case len(r.PhoneNumbers) > maxNumbers:
		return nil, errMany
	case text == "":
		return nil, errMessage
	case utf8.RuneCountInString(text) > maxText:
		return nil, errTooLong
	case priority < 1 || priority > maxPriority:
		return nil, errPriority
	}
	lane := streams.Lane{Target: target, Priority: streams.Normal, Class: streams.Text}
	if priority >= highPriority {
		lane.Priority = streams.High
	}
	given := map[secret.String]bool{}
	drafts := make([]messages.Draft, len(r.PhoneNumbers))
	for i, number := range r.PhoneNumbers {
		switch {
		case !phoneForm.MatchString(number.Reveal()):
			return nil, errNumber
		case given[number]:
			return nil, errTwice
		}
		given[number] = true
		drafts[i] = messages.Draft{
			Content: messages.Content{Phone: event.Private(number.Reveal()), Text: event.Private(text)},
			Lane:    lane,
		}
	}
	return drafts, nil
}

// isWaiting says whether one of the messages still waits for a phone.
func isWaiting(g messages.Group) bool {
	for _, m := range g.Messages {
		if m.State == streams.Scheduled || m.State == streams.Pending {
			return true
		}
	}
	return false
}

// isTaken says whether phones have taken all messages of a request.
func isTaken(g messages.Group, count int) bool {
	for _, m := range g.Messages {
		if m.State != streams.Leased && m.State != streams.Failed && !m.State.Success() {
			return false
		}
	}
	return len(g.Messages) == count
}

func formatTime(t time.Time) string { return t.UTC().Format(timeForm) }

// refusal is the answer to a fault.
func refusal(f *fault.Error) (status int, body faultOut) {
	switch f.Kind {
	case fault.Invalid:
		return http.StatusBadRequest, faultOut{f.Text}
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge, faultOut{f.Text}
	case fault.Unauthenticated:
		return http.StatusUnauthorized, faultOut{"Invalid credentials"}
	case fault.Forbidden:
		return http.StatusForbidden, faultOut{f.Text}
	case fault.LimitExceeded:
		return http.StatusTooManyRequests, faultOut{"SMS limit exceeded for this month"}
	case fault.RateLimited:
		return http.StatusTooManyRequests, faultOut{f.Text}
	case fault.Full, fault.Unavailable: // surely not stored
		return http.StatusServiceUnavailable, faultOut{f.Text}
	case fault.UnknownOutcome:
		return http.StatusInternalServerError, faultOut{f.Text}
	default:
		return http.StatusInternalServerError, faultOut{"Database error"}
	}
}
