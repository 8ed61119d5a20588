package smsgate

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// why is the text of a refusal.
func why(err error) string {
	if err == nil {
		return ""
	}
	return fault.As(err).Text
}

// sending is a good message with fields of the test's.
func sending(fields string) []byte {
	return []byte(`{"message":"Hi","phoneNumbers":["+12025550100"],` + fields + `"unknown":{"a":[null]}}`)
}

func repeated(n int, format string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(all, ",")
}

func TestParseSend_Rules(t *testing.T) {
	const (
		id      = "failed to validate: id must have at most 36 characters, without |, /, ?, # and control characters"
		numbers = "failed to validate: phoneNumbers must be 1 to 100 numbers"
		long    = "failed to validate: phoneNumbers must have 1 to 128 characters each"
		sim     = "failed to validate: simNumber must be 1 to 3"
		prio    = "failed to validate: priority must be -128 to 127"
		text    = "failed to validate: the text must have 1 to 65535 characters"
		several = "failed to validate: only one of message, textMessage and dataMessage may be given"
		none    = "failed to validate: one of message, textMessage and dataMessage must be given"
		data    = "failed to validate: dataMessage.data must have 4 to 65535 characters"
		base64  = "failed to validate: dataMessage.data must be base64"
		port    = "failed to validate: dataMessage.port must be 1 to 65535"
		past    = "failed to validate: scheduleAt must be in the future"
		order   = "failed to validate: scheduleAt must not be after the message's end"
		ttl     = "failed to validate: ttl must be 5 seconds or more"
		both    = "failed to validate: only one of ttl and validUntil may be given"
		unicode = "failed to parse body: it is not valid Unicode"
		content = `"phoneNumbers":["+12025550100"]}`
	)
	tests := []struct{ name, body, want string }{
		{"nothing special", string(sending("")), ""},
		{"nulls", string(sending(`"id":null,"deviceId":null,"textMessage":null,"dataMessage":null,"isEncrypted":null,"simNumber":null,"withDeliveryReport":null,"priority":null,"ttl":null,"validUntil":null,"scheduleAt":null,`)), ""},
		{"names whatever their case", `{"MESSAGE":"Hi","PhoneNumbers":["+12025550100"]}`, ""},
		{"an id of 36 characters", string(sending(`"id":"` + strings.Repeat("é", 36) + `",`)), ""},
		{"an id of 37 characters", string(sending(`"id":"` + strings.Repeat("a", 37) + `",`)), id},
		{"an empty id", string(sending(`"id":"",`)), ""},
		{"an id with |", string(sending(`"id":"a|b",`)), id},
		{"an id with /", string(sending(`"id":"a/b",`)), id},
		{"an id with ?", string(sending(`"id":"a?b",`)), id},
		{"an id with #", string(sending(`"id":"a#b",`)), id},
		{"an id with a control character", string(sending(`"id":"a\u007fb",`)), id},
		{"no numbers", `{"message":"Hi"}`, numbers},
		{"null for the numbers", `{"message":"Hi","phoneNumbers":null}`, numbers},
		{"100 numbers", `{"message":"Hi","phoneNumbers":[` + repeated(100, `"+120255501%02d"`) + `]}`, ""},
		{"101 numbers", `{"message":"Hi","phoneNumbers":[` + repeated(101, `"%d"`) + `]}`, numbers},
		{"as many numbers as fit", `{"message":"Hi","phoneNumbers":[` + strings.TrimSuffix(strings.Repeat(`"",`, maxBody/4), ",") + `]}`, numbers},
		{"an empty number", `{"message":"Hi","phoneNumbers":["+12025550100",""]}`, long},
		{"null as a number", `{"message":"Hi","phoneNumbers":[null]}`, long},
		{"a number of 129 characters", `{"message":"Hi","phoneNumbers":["` + strings.Repeat("1", 129) + `"]}`, long},
		{"a number that is one", `{"message":"Hi","phoneNumbers":[1]}`, "failed to parse body: phoneNumbers has the wrong type"},
		{"one number alone", `{"message":"Hi","phoneNumbers":"1"}`, "failed to parse body: phoneNumbers has the wrong type"},
		{"SIM 0", string(sending(`"simNumber":0,`)), sim},
		{"SIM 1", string(sending(`"simNumber":1,`)), ""},
		{"SIM 3", string(sending(`"simNumber":3,`)), ""},
		{"SIM 4", string(sending(`"simNumber":4,`)), sim},
		{"SIM 1.5", string(sending(`"simNumber":1.5,`)), "failed to parse body: simNumber has the wrong type"},
		{"priority -128", string(sending(`"priority":-128,`)), ""},
		{"priority -129", string(sending(`"priority":-129,`)), prio},
		{"priority 127", string(sending(`"priority":127,`)), ""},
		{"priority 128", string(sending(`"priority":128,`)), prio},
		{"priority 1e400", string(sending(`"priority":1e400,`)), "failed to parse body: priority has the wrong type"},
		{"a text as a text", `{"textMessage":"Hi",` + content, "failed to parse body: textMessage has the wrong type"},
		{"a number in a text", `{"textMessage":{"text":1},` + content, "failed to parse body: textMessage.text has the wrong type"},
		{"65535 characters", `{"textMessage":{"text":"` + strings.Repeat("é", 65535) + `"},` + content, ""},
		{"65536 characters", `{"textMessage":{"text":"` + strings.Repeat("a", 65536) + `"},` + content, text},
		{"65536 characters as it was", `{"message":"` + strings.Repeat("a", 65536) + `",` + content, text},
		{"no characters", `{"textMessage":{"text":""},` + content, text},
		{"no text", `{"textMessage":{},` + content, text},
		{"nothing to say", `{` + content, none},
		{"an empty message", `{"message":"",` + content, none},
		{"an empty message beside a text", `{"message":"","textMessage":{"text":"a"},` + content, ""},
		{"two texts", string(sending(`"textMessage":{"text":"a"},`)), several},
		{"text and data", string(sending(`"dataMessage":{"data":"AAAA","port":1},`)), several},
		{"another text and data", `{"textMessage":{"text":"a"},"dataMessage":{"data":"AAAA","port":1},` + content, several},
		{"data", `{"dataMessage":{"data":"AA==","port":65535},` + content, ""},
		{"little data", `{"dataMessage":{"data":"AA=","port":1},` + content, data},
		{"65536 characters of data", `{"dataMessage":{"data":"` + strings.Repeat("A", 65536) + `","port":1},` + content, data},
		{"65532 characters of data", `{"dataMessage":{"data":"` + strings.Repeat("A", 65532) + `","port":1},` + content, ""},
		{"no port", `{"dataMessage":{"data":"AAAA"},` + content, port},
		{"a high port", `{"dataMessage":{"data":"AAAA","port":65536},` + content, port},
		{"data that is no base64", `{"dataMessage":{"data":"AAA!","port":1},` + content, base64},
		{"data in lines", `{"dataMessage":{"data":"AAAA\n","port":1},` + content, base64},
		{"data of URLs", `{"dataMessage":{"data":"__--","port":1},` + content, base64},
		{"encrypted data", `{"isEncrypted":true,"dataMessage":{"data":"$aes$","port":1},` + content, ""},
		{"a ttl of 4", string(sending(`"ttl":4,`)), ttl},
		{"a ttl of 5", string(sending(`"ttl":5,`)), ""},
		{"a ttl of -5", string(sending(`"ttl":-5,`)), "failed to parse body: ttl has the wrong type"},
		{"the longest ttl", string(sending(`"ttl":18446744073709551615,`)), ""},
		{"ttl and validUntil", string(sending(`"ttl":5,"validUntil":"2026-05-18T00:00:00Z",`)), both},
		{"validUntil in the past", string(sending(`"validUntil":"0001-01-01T00:00:00Z",`)), ""},
		{"validUntil of another form", string(sending(`"validUntil":"2026-05-18 00:00:00",`)), "failed to validate: validUntil must be a time as in RFC 3339"},
		{"scheduleAt of another form", string(sending(`"scheduleAt":"",`)), "failed to validate: scheduleAt must be a time as in RFC 3339"},
		{"scheduleAt as a number", string(sending(`"scheduleAt":1779010331,`)), "failed to parse body: scheduleAt has the wrong type"},
		{"scheduleAt now", string(sending(`"scheduleAt":"2026-05-17T09:32:11.421Z",`)), past},
		{"scheduleAt just ahead", string(sending(`"scheduleAt":"2026-05-17T11:32:11.422+02:00",`)), ""},
		{"scheduleAt at the end", string(sending(`"scheduleAt":"2026-05-18T00:00:00Z","validUntil":"2026-05-18T00:00:00Z",`)), ""},
		{"scheduleAt after the end", string(sending(`"scheduleAt":"2026-05-18T00:00:01Z","validUntil":"2026-05-18T00:00:00Z",`)), order},
		{"scheduleAt after the ttl", string(sending(`"scheduleAt":"2026-05-17T09:32:17Z","ttl":5,`)), order},
		{"half a pair", string(sending(`"id":"\uD83D",`)), unicode},
		{"the other half", string(sending(`"id":"\ude00\ud83d",`)), unicode},
		{"half a pair in what is not read", string(sending(`"x":"\ud83d\u0041",`)), unicode},
		{"a pair", string(sending(`"id":"\uD83D\uDE00",`)), ""},
		{"half a pair as text", string(sending(`"id":"\\ud83d\\",`)), ""},
		{"not UTF-8", "{\"message\":\"\xff\"}", unicode},
		{"no JSON", `{`, "failed to parse body: it is not valid JSON"},
		{"nothing", ``, "failed to parse body: it is not valid JSON"},
		{"something behind", `{} {}`, "failed to parse body: it is not valid JSON"},
		{"nested too deeply", `{"a":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, "failed to parse body: it is not valid JSON"},
		{"null", ` null`, "failed to parse body: it is not a JSON object"},
		{"an array", `[{}]`, "failed to parse body: it is not a JSON object"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := parseSend([]byte(test.body), nil, "", began); why(err) != test.want {
				t.Errorf("got %q, want %q", why(err), test.want)
			}
		})
	}
}

// A text is stored once for every recipient, so many recipients leave it less room.
func TestParseSend_LargeContent(t *testing.T) {
	body := func(numbers, characters int) []byte {
		return []byte(`{"message":"` + strings.Repeat("a", characters) + `","phoneNumbers":[` + repeated(numbers, `"+120255501%02d"`) + `]}`)
	}
	for _, test := range []struct {
		numbers, characters int
		want                string
	}{
		{1, 65535, ""}, {48, 65534, ""}, {48, 65535, "failed to validate: the text is too long for so many phoneNumbers"}, {100, 31455, ""},
		{100, 31456, "failed to validate: the text is too long for so many phoneNumbers"},
	} {
		if _, err := parseSend(body(test.numbers, test.characters), nil, "", began); why(err) != test.want {
			t.Errorf("%d characters to %d: got %q, want %q", test.characters, test.numbers, why(err), test.want)
		}
	}
}

func TestParseSend_Meaning(t *testing.T) {
	content := messages.Content{Phone: "+12025550100", Text: "Hi"}
	normal := streams.Lane{Priority: streams.Normal}
	tests := []struct {
		name, body string
		want       messages.Enqueue
	}{
		{"nothing special", string(sending("")), messages.Enqueue{Drafts: []messages.Draft{{Content: content, Lane: normal}}}},
		{
			"all of it", string(sending(`"id":"x","simNumber":2,"withDeliveryReport":false,"priority":-1,"scheduleAt":"2026-05-17T12:00:00+02:00","ttl":86400,`)),
			messages.Enqueue{
				Name: "x", Due: began.Truncate(time.Hour).Add(time.Hour), Until: began.Add(24 * time.Hour),
				Drafts: []messages.Draft{{
					Content: messages.Content{Phone: "+12025550100", Text: "Hi", SIM: 2, NoReceipt: true, Priority: -1}, Lane: streams.Lane{Priority: streams.Low},
				}},
			},
		},
		{
			"the end of its life, to the digit", string(sending(`"withDeliveryReport":true,"validUntil":"2026-05-18T00:00:00.5Z",`)),
			messages.Enqueue{Until: time.Date(2026, 5, 18, 0, 0, 0, 5e8, time.UTC), Drafts: []messages.Draft{{Content: content, Lane: normal}}},
		},
		{
			"over already", string(sending(`"validUntil":"0001-01-01T00:00:00Z",`)),
			messages.Enqueue{Until: streams.Epoch, Drafts: []messages.Draft{{Content: content, Lane: normal}}},
		},
		{
			"priority 99", string(sending(`"priority":99,`)),
			messages.Enqueue{Drafts: []messages.Draft{{Content: messages.Content{Phone: "+12025550100", Text: "Hi", Priority: 99}, Lane: normal}}},
		},
		{
			"data", `{"dataMessage":{"data":"AAAA","port":5},"phoneNumbers":["+12025550100","+12025550101"],"priority":100}`,
			messages.Enqueue{Drafts: []messages.Draft{
				{Content: messages.Content{Phone: "+12025550100", Data: "AAAA", Port: 5, Priority: 100}, Lane: streams.Lane{Class: streams.Other}},
				{Content: messages.Content{Phone: "+12025550101", Data: "AAAA", Port: 5, Priority: 100}, Lane: streams.Lane{Class: streams.Other}},
			}},
		},
		{
			"encrypted", `{"isEncrypted":true,"textMessage":{"text":"$b"},"phoneNumbers":["$a"]}`,
			messages.Enqueue{Drafts: []messages.Draft{{
				Content: messages.Content{Phone: "$a", Text: "$b", Encrypted: true}, Lane: streams.Lane{Priority: streams.Normal, Class: streams.Other},
			}}},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o, err := parseSend([]byte(test.body), nil, "", began)
			if err != nil {
				t.Fatal(err)
			}
			test.want.Group = true
			if diff := cmp.Diff(test.want, o.Enqueue); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseSend_Numbers(t *testing.T) {
	const row = "failed to enqueue message: failed to use phone in row "
	tests := []struct {
		name, region string
		numbers      []string
		query        string
		want         []string
		why          string
	}{
		{"of every form", "US", []string{"(202) 555-0100", "+49 30 123456", "001112", "tel:+1-202-555-0101"}, "", nil, row + "3: invalid phone number"},
		{"of a country", "DE", []string{"030 123456", "+1 202 555 0100", "0049 30 1234567"}, "", []string{"+4930123456", "+12025550100", "+49301234567"}, ""},
		{"a country with zeros", "IT", []string{"06 1234567"}, "", []string{"+39061234567"}, ""},
		{"no country", "", []string{"+12025550100", "2025550100"}, "", nil, row + "2: failed to parse phone number: invalid country code"},
		{"no such country", "", []string{"+999123456789"}, "", nil, row + "1: failed to parse phone number: invalid country code"},
		{"a region that is none", "XX", []string{"2025550100"}, "", nil, row + "1: failed to parse phone number: invalid country code"},
		{"no number", "US", []string{"hello"}, "", nil, row + "1: failed to parse phone number: the phone number supplied is not a number"},
		{"a number of a town", "US", []string{"555-0100"}, "", nil, row + "1: invalid phone number"},
		{"a short code", "US", []string{"12345"}, "", nil, row + "1: invalid phone number"},
		{"the same twice", "US", []string{"2025550100", "+1 202 5550100"}, "", nil, "phone numbers must be unique"},
		{"as they are", "US", []string{"12345", "hello\x00", " +1"}, "skipPhoneValidation=true", []string{"12345", "hello\x00", " +1"}, ""},
		{"as they are, twice", "US", []string{"12345", "12345"}, "skipPhoneValidation=1", nil, "phone numbers must be unique"},
		{"not as they are", "US", []string{"12345"}, "skipPhoneValidation=false", nil, row + "1: invalid phone number"},
		{"as who knows", "US", []string{"12345"}, "skipPhoneValidation=yes", nil, "failed to parse query: skipPhoneValidation must be true or false"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			q, err := url.ParseQuery(test.query)
			if err != nil {
				t.Fatal(err)
			}
			o, err := parseSend(httpx.JSON(map[string]any{"message": "Hi", "phoneNumbers": test.numbers}), q, test.region, began)
			var got []string
			for _, d := range o.Drafts {
				got = append(got, d.Phone.Reveal())
			}
			if why(err) != test.why || err == nil && !slices.Equal(got, test.want) {
				t.Errorf("got %q, %q; want %q, %q", got, why(err), test.want, test.why)
			}
		})
	}
}

func TestPick(t *testing.T) {
	const none = "failed to select device: record not found"
	devices := []streams.Device{phone, tablet}
	tests := []struct {
		name, device, hours string
		want                streams.DeviceID
		why                 string
	}{
		{"one", "00000000000000a1", "", phone.ID, ""},
		{"one that was never seen", "00000000000000a2", "", tablet.ID, ""},
		{"another's", "00000000000000ff", "", 0, none},
		{"one of the official server", "V1StGXR8_Z5jdHi6B-myT", "", 0, none},
		{"one seen lately", "00000000000000a1", "2", phone.ID, ""},
		{"one seen not so lately", "00000000000000a1", "1", 0, none},
		{"one not seen", "00000000000000a2", "2", 0, none},
		{"any seen lately", "", "2", 0, ""},
		{"any seen not so lately", "", "1", 0, none},
		{"any since ever", "", "9223372036854775807", 0, ""},
		{"any before now", "", "-1", 0, "failed to parse query: deviceActiveWithin must be a number from 0"},
		{"any", "", "9223372036854775808", 0, "failed to parse query: deviceActiveWithin must be a number from 0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			body := httpx.JSON(map[string]any{"message": "Hi", "phoneNumbers": []string{"+12025550100"}, "deviceId": test.device})
			o, err := parseSend(body, url.Values{"deviceActiveWithin": {test.hours}}, "", began)
			if err == nil {
				if !o.picky() {
					t.Error("any device will do")
				}
				err = o.pick(devices)
			}
			if why(err) != test.why || err == nil && o.Drafts[0].Lane.Target != test.want {
				t.Errorf("got %q and %+v", why(err), o.Drafts)
			}
		})
	}
	if o, err := parseSend(sending(""), url.Values{"deviceActiveWithin": {"0"}}, "", began); err != nil || o.picky() {
		t.Errorf("0 hours: got picky, %v", err)
	}
}

func TestMessage(t *testing.T) {
	at := func(state streams.State, seconds int) messages.Step {
		return step(state, time.Duration(seconds)*time.Second)
	}
	g := messages.Group{ID: firstID, State: streams.Leased, Messages: []messages.Member{
		{ID: firstID, Content: messages.Content{Phone: "1", Data: "AAAA", Port: 5, Encrypted: true}, State: streams.Leased, Steps: []messages.Step{at(streams.Leased, 5)}},
		{ID: firstID + 1, Content: messages.Content{Phone: "2"}, State: streams.Failed, Reason: `a "b"`, Steps: []messages.Step{at(streams.Leased, 3), at(streams.Pending, 4), at(streams.Failed, 9)}},
		{ID: firstID + 2, State: streams.Failed},
		{ID: firstID + 3, State: streams.Expired, Reason: "x", Steps: []messages.Step{at(streams.Expired, 8)}},
		{ID: firstID + 4, State: streams.Cancelled, Reason: "x", Steps: []messages.Step{{At: began.Add(time.Hour + 987654*time.Nanosecond).In(time.FixedZone("", 7200)), State: streams.Cancelled}}},
		{ID: firstID + 5, State: streams.Scheduled}, {ID: firstID + 6, State: streams.Pending}, {ID: firstID + 7, State: streams.Sent}, {ID: firstID + 8, State: streams.Delivered},
	}}
	got := string(httpx.JSON(forms[0].message(g, true)))
	want := `{"id":"` + firstID.String() + `","state":"Processed","createdAt":"2026-05-17T09:32:11.421Z","recipients":[` +
		`{"phoneNumber":"1","state":"Processed"},{"phoneNumber":"2","state":"Failed","error":"a \"b\""},{"phoneNumber":"","state":"Failed"},` +
		`{"phoneNumber":"","state":"Failed","error":"TTL expired"},{"phoneNumber":"","state":"Cancelled"},{"phoneNumber":"","state":"Pending"},` +
		`{"phoneNumber":"","state":"Pending"},{"phoneNumber":"","state":"Sent"},{"phoneNumber":"","state":"Delivered"}],` +
		`"deviceId":"","isHashed":false,"isEncrypted":true,"states":{"Cancelled":"2026-05-17T10:32:11.421Z","Failed":"2026-05-17T09:32:19.421Z",` +
		`"Pending":"2026-05-17T09:32:11.421Z","Processed":"2026-05-17T09:32:14.421Z"},"dataMessage":{"data":"AAAA","port":5}}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if out := forms[1].message(g, false); out.DataMessage != nil || string(out.Recipients[0].Error) != "null" {
		t.Errorf("got %+v", out)
	}
	for _, state := range streams.States() {
		if words[state] == "" {
			t.Errorf("%s has no word", state)
		}
	}
}

func TestParseList(t *testing.T) {
	base := messages.Browse{Limit: 20}
	with := func(change func(*messages.Browse)) messages.Browse { b := base; change(&b); return b }
	day := time.Date(2026, 5, 16, 0, 0, 0, 0, time.UTC)
	const limit, offset = "failed to parse query: limit must be a number from 1", "failed to parse query: offset must be a number from 0"
	tests := []struct {
		query   string
		want    messages.Browse
		nothing bool
		why     string
	}{
		{"", base, false, ""},
		{"limit=&offset=&skip=&state=&sort=&from=&to=&deviceId=&includeContent=", base, false, ""},
		{"limit=100&skip=5", with(func(b *messages.Browse) { b.Limit, b.Offset = 100, 5 }), false, ""},
		{"offset=7", with(func(b *messages.Browse) { b.Offset = 7 }), false, ""},
		{"offset=7&skip=5", with(func(b *messages.Browse) { b.Offset = 5 }), false, ""},
		{"limit=0", base, false, limit},
		{"limit=101", base, false, limit + " to 100"},
		{"limit=1e1", base, false, limit},
		{"limit=99999999999999999999", base, false, limit},
		{"offset=-1", base, false, offset},
		{"skip=-1", base, false, "failed to parse query: skip must be a number from 0"},
		{"sort=created_at", with(func(b *messages.Browse) { b.Oldest = true }), false, ""},
		{"sort=-created_at", base, false, ""},
		{"sort=id", base, false, "failed to parse query: sort must be created_at or -created_at"},
		{"includeContent=true", with(func(b *messages.Browse) { b.Content = true }), false, ""},
		{"includeContent=2", base, false, "failed to parse query: includeContent must be true or false"},
		{"state=Pending", with(func(b *messages.Browse) { b.States = []streams.State{streams.Scheduled, streams.Pending} }), false, ""},
		{"state=Failed", with(func(b *messages.Browse) { b.States = []streams.State{streams.Failed, streams.Expired} }), false, ""},
		{"state=Processed", with(func(b *messages.Browse) { b.States = []streams.State{streams.Leased} }), false, ""},
		{"state=Sent", with(func(b *messages.Browse) { b.States = []streams.State{streams.Sent} }), false, ""},
		{"state=Delivered", with(func(b *messages.Browse) { b.States = []streams.State{streams.Delivered} }), false, ""},
		{"state=Cancelled", with(func(b *messages.Browse) { b.States = []streams.State{streams.Cancelled} }), false, ""},
		{"state=Cancelling", base, true, ""},
		{"state=pending", base, false, "failed to parse query: state must be Pending, Cancelling, Cancelled, Processed, Sent, Delivered or Failed"},
		{"deviceId=00000000000000a1", with(func(b *messages.Browse) { b.Device = phone.ID }), false, ""},
		{"deviceId=0000000000000000", base, true, ""},
		{"deviceId=V1StGXR8_Z5jdHi6B-myT", base, false, "failed to parse query: deviceId must be a device's id"},
		{"from=2026-05-16T02:00:00%2B02:00", with(func(b *messages.Browse) { b.From = day }), false, ""},
		{"from=2026-05-16T02:00:00+02:00", base, false, "failed to parse query: from must be a time as in RFC 3339, with + written as %2B"},
		{"to=2026-05-16", base, false, "failed to parse query: to must be a time as in RFC 3339, with + written as %2B"},
		{"to=0001-01-01T00:00:00Z", with(func(b *messages.Browse) { b.To = streams.Epoch }), false, ""},
		{"from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z", with(func(b *messages.Browse) { b.From, b.To = streams.Epoch, began.Add(24*time.Hour) }), false, ""},
	}
	for _, test := range tests {
		t.Run(test.query, func(t *testing.T) {
			q, err := url.ParseQuery(test.query)
			if err != nil {
				t.Fatal(err)
			}
			got, nothing, err := forms[1].parseList(q, began)
			if why(err) != test.why || nothing != test.nothing {
				t.Fatalf("got %q, nothing %v", why(err), nothing)
			}
			if diff := cmp.Diff(test.want, got); err == nil && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got, _, err := forms[0].parseList(url.Values{"skip": {"5"}}, began); err != nil || got.Offset != 0 || got.Limit != 50 {
		t.Errorf("the official address skips: %+v, %v", got, err)
	}
}

func TestList_Nothing(t *testing.T) {
	s := newServer()
	s.total = 5
	answer := s.call(login, "GET", "/3rdparty/v1/messages?state=Cancelling", "")
	if got := answer.header.Get("X-Total-Count"); got != "0" {
		t.Errorf("got a total of %q", got)
	}
	want(t, answer, 200, "[]")
	s.wantCalls(t)
}

func TestParseWebhook(t *testing.T) {
	const (
		address = "failed to validate: url must be an https:// address of at most 256 characters"
		host    = `"url":"https://example.org",`
	)
	for body, want := range map[string]string{
		`{` + host + `"event":"mms:batch:downloaded"}`:                                                  "",
		`{"url":"https://` + strings.Repeat("a", 248) + `","event":"sms:sent"}`:                         "",
		`{"url":"https://` + strings.Repeat("a", 249) + `","event":"sms:sent"}`:                         address,
		`{"url":"http://example.org","event":"sms:sent"}`:                                               address,
		`{"url":"https://","event":"sms:sent"}`:                                                         address,
		`{"url":"https://:80/","event":"sms:sent"}`:                                                     address,
		`{"url":"https://a b","event":"sms:sent"}`:                                                      address,
		`{"url":"https:example.org","event":"sms:sent"}`:                                                address,
		`{"event":"sms:sent"}`:                                                                          address,
		`{"url":null,"event":"sms:sent"}`:                                                               address,
		`{` + host + `"event":"sms:send"}`:                                                              "failed to validate: event must be one of " + strings.Join(hooks, ", "),
		`{` + host + `"event":"sms:sent","id":"` + strings.Repeat("a", 36) + `"}`:                       "",
		`{` + host + `"event":"sms:sent","id":"` + strings.Repeat("a", 37) + `"}`:                       "failed to validate: id must have at most 36 characters, without |, /, ?, # and control characters",
		`{` + host + `"event":"sms:sent","id":"a/b"}`:                                                   "failed to validate: id must have at most 36 characters, without |, /, ?, # and control characters",
		`{` + host + `"event":"sms:sent","deviceId":"","device_id":"00000000000000ff"}`:                 "failed to validate: deviceId must be a device of the account",
		`{` + host + `"event":"sms:sent","deviceId":"00000000000000a1","device_id":"00000000000000ff"}`: "",
		`{` + host + `"event":5}`:                                                                       "failed to parse body: event has the wrong type",
	} {
		w, device, err := parseWebhook([]byte(body))
		if err == nil && device != "" {
			_, err = ofDevice([]streams.Device{phone, tablet}, device)
		}
		if why(err) != want || err == nil && (w.ID == "" || w.URL == "" || w.Event == "") {
			t.Errorf("%s: got %q, want %q", body, why(err), want)
		}
	}
}

func TestParseSettings(t *testing.T) {
	const number = " must be a number from 1 to 2147483647"
	for body, want := range map[string]string{
		`{"messages":{"send_interval_min":1,"send_interval_max":2147483647,"work_hours_enabled":true,"work_hours_start":"00:00","workHoursEnd":"23:59"}}`: `{"messages":{"send_interval_max":2147483647,"send_interval_min":1,"work_hours_enabled":true,"work_hours_end":"23:59","work_hours_start":"00:00"}}`,
		`{"Messages":{"simSelectionMode":"Random","LOG_LIFETIME_DAYS":7},"other":5,"ping":{"other":{}}}`:                                                  `{"messages":{"log_lifetime_days":7,"sim_selection_mode":"Random"},"ping":{}}`,
		`{"ping":{"intervalSeconds":5,"interval_seconds":6}}`:                                                                                             `{"ping":{"interval_seconds":6}}`,
		`{"webhooks":{"signing_key":"","internet_required":false},"gateway":{"cloudUrl":"","private_token":null,"notificationChannel":"SSE_ONLY"}}`:       `{"gateway":{"notification_channel":"SSE_ONLY"},"webhooks":{"internet_required":false}}`,
		`{"encryption":{"passphrase":""},"logs":null}`:                                                                                                    `{"encryption":{}}`,
		`{"messages":{"limit_value":0}}`:                   "!messages.limit_value" + number,
		`{"messages":{"limit_value":2147483648}}`:          "!messages.limit_value" + number,
		`{"messages":{"limit_value":"5"}}`:                 "!messages.limit_value" + number,
		`{"messages":{"limit_value":5.0}}`:                 "!messages.limit_value" + number,
		`{"messages":{"limit_period":"perday"}}`:           "!messages.limit_period must be one of Disabled, PerMinute, Per30Minutes, PerHour, PerDay",
		`{"messages":{"limit_period":""}}`:                 "!messages.limit_period must be one of Disabled, PerMinute, Per30Minutes, PerHour, PerDay",
		`{"messages":{"processing_order":["LIFO"]}}`:       "!messages.processing_order must be one of LIFO, FIFO",
		`{"messages":{"work_hours_enabled":1}}`:            "!messages.work_hours_enabled must be true or false",
		`{"messages":{"work_hours_start":"24:00"}}`:        "!messages.work_hours_start must be a time as HH:MM",
		`{"messages":{"work_hours_start":"9:00"}}`:         "!messages.work_hours_start must be a time as HH:MM",
		`{"messages":[]}`:                                  "!messages must be an object",
		`{"ping":5}`:                                       "!ping must be an object",
		`{"webhooks":{"signingKey":"x"}}`:                  "!webhooks.signing_key must be empty: it is the phone's own",
		`{"gateway":{"cloud_url":"https://example.org"}}`:  "!gateway.cloud_url must be empty: it is the phone's own",
		`{"gateway":{"private_token":{}}}`:                 "!gateway.private_token must be empty: it is the phone's own",
		`{"encryption":{"passphrase":false}}`:              "!encryption.passphrase must be empty: it is the phone's own",
		`{"receiver":{"content_provider_enabled":"true"}}`: "!receiver.content_provider_enabled must be true or false",
		`{"gateway":{"notification_channel":"auto"}}`:      "!gateway.notification_channel must be one of AUTO, SSE_ONLY",
	} {
		given, err := parseSettings([]byte(body))
		got := string(replace(nil, given).write())
		if err != nil {
			got = "!" + strings.TrimPrefix(why(err), "failed to validate: ")
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", body, got, want)
		}
	}
}

func TestMerge(t *testing.T) {
	stored := json.RawMessage(`{"messages":{"limit_value":5,"limit_period":"PerDay"},"ping":{"interval_seconds":30}}`)
	for _, test := range []struct{ given, want string }{
		{`{}`, string(httpx.JSON(stored))},
		{`{"messages":{"limit_value":6}}`, `{"messages":{"limit_period":"PerDay","limit_value":6},"ping":{"interval_seconds":30}}`},
		{`{"messages":{"limit_value":null},"ping":null}`, `{"messages":{"limit_period":"PerDay"}}`},
		{`{"logs":{"lifetime_days":null}}`, `{"logs":{},"messages":{"limit_period":"PerDay","limit_value":5},"ping":{"interval_seconds":30}}`},
	} {
		stand, err := readSettings(stored)
		if err != nil {
			t.Fatal(err)
		}
		given, err := parseSettings([]byte(test.given))
		if err != nil {
			t.Fatal(err)
		}
		got, again := string(merge(stand, given).write()), string(merge(stand, given).write())
		var wantMap, gotMap any
		if json.Unmarshal([]byte(test.want), &wantMap) != nil || json.Unmarshal([]byte(got), &gotMap) != nil || cmp.Diff(wantMap, gotMap) != "" || got != again {
			t.Errorf("%s: got %s and %s, want %s", test.given, got, again, test.want)
		}
	}
}

func TestRefusal(t *testing.T) {
	for kind, want := range map[fault.Kind]int{
		fault.Internal: 500, fault.Invalid: 400, fault.TooLarge: 413, fault.Unauthenticated: 401, fault.Forbidden: 403, fault.NotFound: 404,
		fault.Conflict: 409, fault.Mismatch: 422, fault.LimitExceeded: 429, fault.RateLimited: 429, fault.Full: 503, fault.Unavailable: 503,
		fault.UnknownOutcome: 503, "from a later version": 500,
	} {
		if got, body := refusal(fault.New(kind, "code", "Text")); got != want || body.Message == "" {
			t.Errorf("%s: got %d %q, want %d", kind, got, body.Message, want)
		}
	}
}

// Numbers and texts are in what goes to the backend only as what no log can show.
func TestOrderDoesNotPrint(t *testing.T) {
	o, err := parseSend(sending(""), nil, "", began)
	if printed := fmt.Sprintf("%v %+v", o, o.Drafts); err != nil || strings.Contains(printed, "2025550100") || strings.Contains(printed, "Hi") {
		t.Errorf("%v: %s", err, printed)
	}
	if got := o.Drafts[0].Text; got != event.Private("Hi") {
		t.Errorf("got a text of %s", got)
	}
}
