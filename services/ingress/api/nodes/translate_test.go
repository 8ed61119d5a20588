package nodes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const login = `"deviceUsername":"pixel","password":"correct horse",`

func TestParse(t *testing.T) {
	tests := []struct {
		name, body string
		want       error
	}{
		{"a login is enough", `{` + strings.TrimSuffix(login, ",") + `}`, nil},
		{"names are read whatever their case", `{"deviceusername":"pixel","PASSWORD":"x"}`, nil},
		{"what else is wrong is told later", `{` + login + `"phoneNumbers":5}`, nil},
		{"no username", `{"password":"x"}`, errLogin},
		{"no password", `{"deviceUsername":"pixel","password":""}`, errLogin},
		{"null", `null`, errLogin},
		{"nulls", `{"deviceUsername":null,"password":null}`, errLogin},
		{"no login beside what else is wrong", `{"priority":"high"}`, errLogin},
		{"a username that is none", `{"deviceUsername":7,"password":"x"}`, errName},
		{"a password that is none", `{"deviceUsername":"pixel","password":[]}`, errPassword},
		{"nothing", ``, errJSON},
		{"no JSON", `deviceUsername=pixel`, errJSON},
		{"more than JSON", `{} {}`, errJSON},
		{"an array", `[{}]`, errShape},
		{"a text", `"pixel"`, errShape},
		{"bytes that are no characters", "{\"deviceUsername\":\"\xff\"}", errHalf},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := parse([]byte(test.body)); err != test.want { //nolint:errorlint // the very variable
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestDrafts(t *testing.T) {
	numbers := func(n int) string {
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf(`"%06d"`, i)
		}
		return `"phoneNumbers":[` + strings.Join(all, ",") + `]`
	}
	const one, text = `"phoneNumbers":["+1234567890"]`, `"message":"a"`
	tests := []struct {
		name, fields string
		want         error
	}{
		{"as documented", `"phoneNumbers":["+1234567890","+0987654321"],"message":"Hello from SMS Nodes!","priority":1`, nil},
		{"100 numbers", numbers(100) + `,` + text, nil},
		{"101 numbers", numbers(101) + `,` + text, errMany},
		{"no numbers", text, errNumbers},
		{"an empty list", `"phoneNumbers":[],` + text, errNumbers},
		{"a number alone", `"phoneNumbers":"+1234567890",` + text, errNumberList},
		{"a number that is no string", `"phoneNumbers":["+1234567890",1234567890],` + text, errNumberList},
		{"null among the numbers", `"phoneNumbers":["+1234567890",null],` + text, errNumber},
		{"6 digits", `"phoneNumbers":["123456"],` + text, nil},
		{"5 digits", `"phoneNumbers":["12345"],` + text, errNumber},
		{"20 digits", `"phoneNumbers":["+12345678901234567890"],` + text, nil},
		{"21 digits", `"phoneNumbers":["+123456789012345678901"],` + text, errNumber},
		{"spaces", `"phoneNumbers":["+1 234 567"],` + text, errNumber},
		{"a number and a line's end", `"phoneNumbers":["+1234567890\n"],` + text, errNumber},
		{"a number twice", `"phoneNumbers":["+1234567890","123456","+1234567890"],` + text, errTwice},
		{"with and without a +", `"phoneNumbers":["+1234567890","1234567890"],` + text, nil},
		{"no message", one, errMessage},
		{"an empty message", one + `,"message":""`, errMessage},
		{"a message that is none", one + `,"message":{}`, errText},
		{"1000 characters", one + `,"message":"` + strings.Repeat("x", 1000) + `"`, nil},
		{"1000 characters of 12 bytes as written", one + `,"message":"` + strings.Repeat(`\ud83d\ude00`, 1000) + `"`, nil},
		{"1001 characters", one + `,"message":"` + strings.Repeat("é", 1001) + `"`, errTooLong},
		{"half a pair", one + `,"message":"\ud83d"`, errHalf},
		{"what looks like half a pair", one + `,"message":"\\ud83d"`, nil},
		{"priority 5", one + `,` + text + `,"priority":5`, nil},
		{"priority 0", one + `,` + text + `,"priority":0`, errPriority},
		{"priority 6", one + `,` + text + `,"priority":6`, errPriority},
		{"no number", one + `,` + text + `,"priority":"1"`, errPriority},
		{"no whole number", one + `,` + text + `,"priority":1.5`, errPriority},
		{"a number beyond all", one + `,` + text + `,"priority":1e400`, errPriority},
		{"no priority", one + `,` + text + `,"priority":null`, nil},
		{"what is not known", one + `,` + text + `,"sender":7`, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := parse([]byte(`{` + login + test.fields + `}`))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.drafts(0); err != test.want && (err != nil || test.want != nil) { //nolint:errorlint // the very variable
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestDrafts_Become(t *testing.T) {
	for priority, want := range map[string]streams.Priority{
		`1`: streams.Normal, `2`: streams.Normal, `3`: streams.Normal, `4`: streams.High, `5`: streams.High, `null`: streams.Normal,
	} {
		r, err := parse([]byte(`{` + login + `"phoneNumbers":["+1234567890","123456"],"message":"a\u00e9","priority":` + priority + `}`))
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.drafts(9)
		if err != nil {
			t.Fatal(err)
		}
		lane := streams.Lane{Target: 9, Priority: want, Class: streams.Text}
		wanted := []messages.Draft{
			{Content: messages.Content{Phone: "+1234567890", Text: "aé"}, Lane: lane},
			{Content: messages.Content{Phone: "123456", Text: "aé"}, Lane: lane},
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("priority %s (-want +got):\n%s", priority, diff)
		}
	}
}

func TestNumberOf(t *testing.T) {
	if got := streams.PlaceNumber(0, 1); got != 64 {
		t.Errorf("got %d, want 64", got)
	}
	if got := streams.PlaceNumber(63, 1_000_000_000); got != 64_000_000_063 {
		t.Errorf("got %d, want 64000000063", got)
	}
}

func TestIsTaken(t *testing.T) {
	tests := []struct {
		states         []streams.State
		waiting, taken bool
	}{
		{[]streams.State{streams.Leased, streams.Leased}, false, true},
		{[]streams.State{streams.Sent, streams.Delivered}, false, true},
		{[]streams.State{streams.Leased, streams.Failed}, false, true},
		{[]streams.State{streams.Leased, streams.Pending}, true, false},
		{[]streams.State{streams.Scheduled, streams.Leased}, true, false},
		{[]streams.State{streams.Leased, streams.Cancelled}, false, false},
		{[]streams.State{streams.Leased, streams.Expired}, false, false},
		{[]streams.State{streams.Leased}, false, false},
		{nil, false, false},
	}
	for _, test := range tests {
		var g messages.Group
		for _, state := range test.states {
			g.Messages = append(g.Messages, messages.Member{State: state})
		}
		if waiting, taken := isWaiting(g), isTaken(g, 2); waiting != test.waiting || taken != test.taken {
			t.Errorf("%v: got waiting %v and taken %v, want %v and %v", test.states, waiting, taken, test.waiting, test.taken)
		}
	}
}

func TestFormatTime(t *testing.T) {
	at := time.Date(2026, 1, 15, 11, 30, 0, 999_999_999, time.FixedZone("", 3600))
	if got, want := formatTime(at), "2026-01-15T10:30:00Z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Every kind has a status, and what is our own failure is told in the document's words.
func TestRefusal(t *testing.T) {
	tests := map[fault.Kind]struct {
		status int
		text   string
	}{
		fault.Invalid:         {http.StatusBadRequest, "text"},
		fault.TooLarge:        {http.StatusRequestEntityTooLarge, "text"},
		fault.Unauthenticated: {http.StatusUnauthorized, "Invalid credentials"},
		fault.Forbidden:       {http.StatusForbidden, "text"},
		fault.LimitExceeded:   {http.StatusTooManyRequests, "SMS limit exceeded for this month"},
		fault.RateLimited:     {http.StatusTooManyRequests, "text"},
		fault.Full:            {http.StatusServiceUnavailable, "text"},
		fault.Unavailable:     {http.StatusServiceUnavailable, "text"},
		fault.UnknownOutcome:  {http.StatusInternalServerError, "text"},
		fault.NotFound:        {http.StatusInternalServerError, "Database error"},
		fault.Conflict:        {http.StatusInternalServerError, "Database error"},
		fault.Mismatch:        {http.StatusInternalServerError, "Database error"},
		fault.Internal:        {http.StatusInternalServerError, "Database error"},
	}
	for kind, want := range tests {
		status, body := refusal(fault.New(kind, "code", "text"))
		if status != want.status || body.Error != want.text {
			t.Errorf("%s: got %d %q, want %d %q", kind, status, body.Error, want.status, want.text)
		}
	}
}

// FuzzSend holds that a body is refused in words of the dialect's own, or becomes messages within the bounds which are
// understood alike when they are sent as they were understood.
func FuzzSend(f *testing.F) {
	for _, seed := range []string{
		`{"deviceUsername":"your_device_name","password":"your_device_password","phoneNumbers":["+1234567890","+0987654321"],"message":"Hello from SMS Nodes!","priority":1}`,
		`{` + login + `"phoneNumbers":["123456"],"message":"a","priority":5}`, `{` + login + `"phoneNumbers":["123456",null],"message":7}`,
		`{` + login + `"phoneNumbers":["123456"],"message":"\ud83d\ude00\\ud83d"}`, `{` + login + `"phoneNumbers":["123456"],"message":"\ud83d"}`,
		`{` + login + `"phoneNumbers":["123456","123456"],"message":"a"}`, `{` + login + `"phoneNumbers":["123456"],"message":"a","message":"b","priority":1e400}`,
		`null`, `[]`, `{`, `{"deviceUsername":{},"password":[]}`, `{"deviceUsername":"a","password":"b"}`, "{\"message\":\"\xff\"}",
	} {
		f.Add([]byte(seed))
	}
	known := []error{
		errJSON, errShape, errLogin, errNumbers, errMany, errNumber, errTwice, errMessage, errTooLong, errHalf, errPriority,
		errName, errPassword, errNumberList, errText,
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parse(body)
		var drafts []messages.Draft
		if err == nil {
			drafts, err = r.drafts(5)
		}
		if err != nil {
			if !slices.Contains(known, err) || len(drafts) > 0 {
				t.Fatalf("refused with %v and %d drafts", err, len(drafts))
			}
			return
		}
		if r.DeviceUsername == "" || r.Password == "" || len(drafts) == 0 || len(drafts) > maxNumbers {
			t.Fatalf("took %d drafts from %q", len(drafts), r.DeviceUsername)
		}
		again := struct {
			DeviceUsername string   `json:"deviceUsername"`
			Password       string   `json:"password"`
			PhoneNumbers   []string `json:"phoneNumbers"`
			Message        string   `json:"message"`
			Priority       int      `json:"priority"`
		}{r.DeviceUsername, r.Password.Reveal(), nil, drafts[0].Text.Reveal(), 3}
		if drafts[0].Lane.Priority == streams.High {
			again.Priority = 4
		}
		seen := map[event.Private]bool{}
		for _, d := range drafts {
			if n := utf8.RuneCountInString(d.Text.Reveal()); seen[d.Phone] || !phoneForm.MatchString(d.Phone.Reveal()) || n < 1 || n > maxText ||
				d.Lane.Target != 5 || d.Lane.Class != streams.Text || d.Content != (messages.Content{Phone: d.Phone, Text: d.Text}) {
				t.Fatalf("took a draft of %d characters in lane %v", n, d.Lane)
			}
			seen[d.Phone] = true
			again.PhoneNumbers = append(again.PhoneNumbers, d.Phone.Reveal())
		}
		if !json.Valid(body) {
			t.Fatal("took what is no JSON")
		}
		r2, err := parse(httpx.JSON(again))
		if err != nil {
			t.Fatalf("what was understood is refused: %v", err)
		}
		drafts2, err := r2.drafts(5)
		if err != nil || !slices.Equal(drafts, drafts2) {
			t.Fatalf("what was understood is understood otherwise: %v", err)
		}
	})
}
