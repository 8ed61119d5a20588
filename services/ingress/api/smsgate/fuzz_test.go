package smsgate

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
)

// own are the dialect's refusals, whole: what is sent is not in them.
var own = regexp.MustCompile(`^(` + strings.Join([]string{
	`failed to parse body: it is not (valid JSON|valid Unicode|a JSON object)`,
	`failed to parse body: (id|deviceId|device_id|message|textMessage(\.text)?|dataMessage(\.data|\.port)?|phoneNumbers|isEncrypted|simNumber|` +
		`withDeliveryReport|priority|ttl|validUntil|scheduleAt|scopes|url|event) has the wrong type`,
	`failed to parse query: (limit|offset|skip|deviceActiveWithin) must be a number from [01]( to 100)?`,
	`failed to parse query: (includeContent|skipPhoneValidation) must be true or false`,
	`failed to parse query: (from|to) must be a time as in RFC 3339, with \+ written as %2B`,
	`failed to parse query: (deviceId must be a device's id|sort must be created_at or -created_at)`,
	`failed to parse query: state must be Pending, Cancelling, Cancelled, Processed, Sent, Delivered or Failed`,
	`failed to validate: id must have at most 36 characters, without \|, /, \?, # and control characters`,
	`failed to validate: phoneNumbers must (be 1 to 100 numbers|have 1 to 128 characters each)`,
	`failed to validate: (simNumber must be 1 to 3|priority must be -128 to 127|the text must have 1 to 65535 characters)`,
	`failed to validate: (only one of|one of) message, textMessage and dataMessage (may|must) be given`,
	`failed to validate: dataMessage\.(data must have 4 to 65535 characters|data must be base64|port must be 1 to 65535)`,
	`failed to validate: (scheduleAt|validUntil) must be a time as in RFC 3339`,
	`failed to validate: scheduleAt must (be in the future|not be after the message's end)`,
	`failed to validate: (ttl must be 5 seconds or more|only one of ttl and validUntil may be given)`,
	`failed to validate: the text is too long for so many phoneNumbers`,
	`failed to validate: scopes must (name one scope or more|not be empty)`,
	`failed to validate: url must be an https:// address of at most 256 characters`,
	`failed to validate: event must be one of [a-z:, -]+`,
	`failed to validate: [a-z]+(\.[a-z_]+)? must be (an object|a number from 1 to 2147483647|true or false|a time as HH:MM|one of [A-Za-z0-9_, ]+|empty: it is the phone's own)`,
	`failed to enqueue message: failed to use phone in row [0-9]{1,3}: (invalid phone number|failed to parse phone number: [a-zA-Z ,]+)`,
	`phone numbers must be unique`,
}, "|") + `)$`)

// refusedAsItShould says that a refusal is a 400 that shows nothing of what was sent.
func refusedAsItShould(t *testing.T, err error) {
	t.Helper()
	if status, body := refusal(fault.As(err)); status != 400 || !own.MatchString(body.Message) {
		t.Fatalf("refused with %d %q", status, body.Message)
	}
}

// FuzzSend holds that a message is refused, or is within the bounds, is taken alike when it is sent as it was
// understood, and has an answer of the documented form.
func FuzzSend(f *testing.F) {
	for _, seed := range []string{
		sample, string(sending("")), `{"phoneNumbers":["2025550100","+1 202 555-0101 ext 5"],"message":"\ud83d\ude00","id":"a"}`,
		`{"phoneNumbers":["$a"],"isEncrypted":true,"dataMessage":{"data":"$b$c","port":1},"priority":-128}`,
		`{"phoneNumbers":["1"],"textMessage":{"text":"\ud83d"}}`, `{"phoneNumbers":["+999","00","*#06#","+",""],"message":"a"}`,
		`{"PHONENUMBERS":["+49 (30) 123456"],"Message":"a","scheduleAt":"2026-05-17T12:00:00+02:00","ttl":86400}`,
		`{"validUntil":"0000-01-01T00:00:00Z","ttl":null,"phoneNumbers":["1-800-FLOWERS"],"message":"a"}`, `{"phoneNumbers":[1,2,{}]}`, `[]`, `null`, `{`,
	} {
		f.Add([]byte(seed), "skipPhoneValidation=true", "US")
		f.Add([]byte(seed), "deviceActiveWithin=24", "")
	}
	f.Fuzz(func(t *testing.T, body []byte, query, region string) {
		q, _ := url.ParseQuery(query) // what cannot be read is left out, as net/http does
		o, err := parseSend(body, q, region, began)
		if err != nil {
			refusedAsItShould(t, err)
			return
		}
		first := o.Drafts[0].Content
		text := first.Text.Reveal() + first.Data.Reveal()
		switch n := utf8.RuneCountInString(text); {
		case len(o.Drafts) > maxNumbers, !utf8.ValidString(text), n < 1, n > maxText, (first.Text == "") == (first.Data == ""),
			first.SIM < 0, first.SIM > maxSIM, o.Name != "" && !isID(o.Name), !o.Due.IsZero() && !o.Due.After(began),
			!o.Until.IsZero() && (o.Until.Before(streams.Epoch) || o.Due.After(o.Until)):
			t.Fatalf("took %d messages of %d characters: %+v", len(o.Drafts), n, o)
		}
		again := map[string]any{
			"id": o.Name, "deviceId": o.device, "isEncrypted": first.Encrypted, "withDeliveryReport": !first.NoReceipt, "priority": first.Priority,
		}
		var numbers []string
		for _, d := range o.Drafts {
			if d.Phone == "" || slices.Contains(numbers, d.Phone.Reveal()) {
				t.Fatalf("took number %q after %q", d.Phone.Reveal(), numbers)
			}
			numbers = append(numbers, d.Phone.Reveal())
		}
		again["phoneNumbers"] = numbers
		if first.Data != "" {
			again["dataMessage"] = map[string]any{"data": first.Data.Reveal(), "port": first.Port}
		} else {
			again["textMessage"] = map[string]any{"text": first.Text.Reveal()}
		}
		if first.SIM != 0 {
			again["simNumber"] = first.SIM
		}
		if !o.Due.IsZero() {
			again["scheduleAt"] = o.Due.Format(time.RFC3339Nano)
		}
		if !o.Until.IsZero() && o.Until.Year() < 10000 {
			again["validUntil"] = o.Until.Format(time.RFC3339Nano)
		}
		o2, err := parseSend(httpx.JSON(again), url.Values{"skipPhoneValidation": {"1"}}, region, began)
		if o.Until.Year() >= 10000 {
			o2.Until = o.Until
		}
		same := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
		if diff := cmp.Diff(o.Enqueue, o2.Enqueue, same); err != nil || diff != "" || o2.device != o.device {
			t.Fatalf("%q is understood as %q, and that otherwise (%v)\n%s", body, httpx.JSON(again), err, diff)
		}
		ids := make([]streams.MessageID, len(o.Drafts))
		for _, form := range forms {
			out := form.message(o.group(ids), true)
			var got messageOut
			if err := json.Unmarshal(httpx.JSON(out), &got); err != nil || cmp.Diff(out, got) != "" || len(got.Recipients) != len(numbers) {
				t.Fatalf("the answer is %s: %v", httpx.JSON(out), err)
			}
		}
	})
}

// FuzzList holds that a query is refused, or asks for a page within the bounds.
func FuzzList(f *testing.F) {
	for _, seed := range []string{
		"", "limit=20&skip=5&offset=6", "state=Failed&sort=created_at", "from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00%2B02:00", "from=%ff",
		"deviceId=00000000000000a1&includeContent=T", "limit=-9223372036854775809", "to=99999-01-01T00:00:00Z", "from=0000-00-00T00:00:00Z",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, _ := url.ParseQuery(query)
		for _, form := range forms {
			b, _, err := form.parseList(q, began)
			if err != nil {
				refusedAsItShould(t, err)
				continue
			}
			if b.Limit < 1 || b.Limit > maxLimit || b.Offset < 0 {
				t.Fatalf("%q is %+v", query, b)
			}
			for _, at := range []time.Time{b.From, b.To} {
				if !at.IsZero() && (at.Before(streams.Epoch) || at.After(began.Add(24*time.Hour))) {
					t.Fatalf("%q is %+v", query, b)
				}
			}
		}
	})
}

// FuzzSettings holds that settings are refused, or come to known ones that are taken alike when they are sent again.
func FuzzSettings(f *testing.F) {
	for _, seed := range []string{
		`{"messages":{"limit_value":5,"limitPeriod":"PerDay","work_hours_start":"09:00"},"ping":null}`, `{"webhooks":{"signing_key":"x"}}`,
		`{"messages":{"limit_value":1e1}}`, `{"MESSAGES":{"limit_value":null},"messages":{}}`, `{"ping":[]}`, `{"logs":{"lifetimeDays":1,"LIFETIMEDAYS":2}}`, `null`,
	} {
		f.Add([]byte(seed), []byte(`{}`))
	}
	f.Fuzz(func(t *testing.T, body, before []byte) {
		given, err := parseSettings(body)
		if err != nil {
			refusedAsItShould(t, err)
			return
		}
		stand, err := parseSettings(before)
		if err != nil {
			stand = settings{}
		}
		stored := replace(nil, merge(replace(nil, stand), given)).write()
		again, err := parseSettings(stored)
		if err != nil || string(replace(nil, again).write()) != string(stored) {
			t.Fatalf("%q into %q is %s, and that is %s, %v", body, before, stored, again.write(), err)
		}
		if read, err := readSettings(stored); err != nil || string(read.write()) != string(stored) {
			t.Fatalf("%s is read as %s, %v", stored, read.write(), err)
		}
	})
}

// FuzzRegistry holds that sessions and webhooks are refused, or within the bounds.
func FuzzRegistry(f *testing.F) {
	for _, seed := range []string{
		`{"ttl":60,"scopes":["all:any"]}`, `{"scopes":[null]}`, `{"url":"https://example.org","event":"sms:sent","device_id":"a"}`,
		`{"url":"https://%zz","event":"sms:sent"}`, `{"id":"\u0000","url":"HTTPS://[::1]:1/","event":"sms:sent"}`, `{"ttl":18446744073709551616}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if ttl, scopes, err := parseSession(body); err != nil {
			refusedAsItShould(t, err)
		} else if ttl < 0 || ttl > access.MaxAccess || len(scopes) == 0 || len(scopes) > maxTexts+1 {
			t.Fatalf("took a session of %v for %d scopes", ttl, len(scopes))
		}
		if w, _, err := parseWebhook(body); err != nil {
			refusedAsItShould(t, err)
		} else if !isID(w.ID) || w.ID == "" || !isHook(w.URL) || !slices.Contains(hooks, w.Event) {
			t.Fatalf("took %+v", w)
		}
	})
}
