package queue

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
	"github.com/trunkline-sms/trunkline/streams"
)

// refusedAsItShould says that a refusal is the dialect's: a 4xx that shows nothing of what was sent.
func refusedAsItShould(t *testing.T, err error) {
	t.Helper()
	status, body := refusal(fault.As(err))
	if !fault.Is(err, fault.Invalid) || status < 400 || status > 499 || body.Error == "" || body.Code == "" {
		t.Fatalf("refused with %d %+v for %v", status, body, err)
	}
	known := []error{errJSON, errShape, errKey, errEmpty, errTooMany, errMessages, errLimit, errWait, errDevice}
	for _, one := range known {
		if body.Error == fault.As(one).Text {
			return
		}
	}
	t.Fatalf("refused with %q, which is none of the dialect's", body.Error)
}

// FuzzStatus holds that every item is either taken or a problem, that what is taken is as the rules say and is taken
// alike when it is sent as it was understood, and that the answer is JSON of the documented form.
func FuzzStatus(f *testing.F) {
	for _, seed := range []string{
		`{"device":"MyPhone","messages":[{"hash":"01a1818a21400000","status":2},{"hash":"01a1818a21400001","status":3}]}`,
		`{"messages":[{"hash":5,"status":2},{"status":2},{"hash":"a","status":1e400},{},null,5]}`, `{"device":"\ud83d","messages":[{}]}`,
		`{"messages":[]}`, `{"messages":{}}`, `[]`, `null`, `{`, `{"messages":[{"hash":"a","hash":"b","status":3,"status":2}],"messages":[{"hash":"c","status":2}]}`,
		`{"messages":[{"hash":"` + strings.Repeat("é", 100) + `","status":18446744073709551618}]}`, "{\"device\":\"a\\u0000\",\"messages\":[{}]}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseStatus(body)
		if err != nil {
			refusedAsItShould(t, err)
			return
		}
		if !isDevice(r.device) || len(r.items) != len(r.positions) || len(r.items)+len(r.problems) > maxItems {
			t.Fatalf("took device %q, %d items at %d places and %d problems", r.device, len(r.items), len(r.positions), len(r.problems))
		}
		type sent struct {
			Hash   string `json:"hash"`
			Status int    `json:"status"`
		}
		again := struct {
			Device   string `json:"device"`
			Messages []sent `json:"messages"`
		}{Device: r.device}
		seen := map[int]bool{}
		var reported messages.Reported
		for i, item := range r.items {
			if item.ID == "" || item.State != streams.Delivered && item.State != streams.Failed {
				t.Fatalf("took item %+v", item)
			}
			seen[r.positions[i]] = true
			again.Messages = append(again.Messages, sent{item.ID, item.State.Code()})
			reported.Problems = append(reported.Problems, messages.Problem{Index: i, Why: messages.Unknown})
		}
		for _, p := range r.problems {
			if seen[p.Index] || p.Error == "" || len(p.Hash) > 64 {
				t.Fatalf("got problem %+v", p)
			}
			seen[p.Index] = true
		}
		for i := range len(seen) {
			if !seen[i] {
				t.Fatalf("item %d is neither taken nor a problem", i)
			}
		}
		answer := r.answer(reported)
		var got statusOut
		if err := json.Unmarshal(httpx.JSON(answer), &got); err != nil || cmp.Diff(answer, got) != "" || !utf8.Valid(httpx.JSON(answer)) {
			t.Fatalf("the answer is %s: %v", httpx.JSON(answer), err)
		}
		for i, p := range got.Errors {
			if i > 0 && got.Errors[i-1].Index >= p.Index {
				t.Fatalf("problems are out of order: %s", httpx.JSON(answer))
			}
		}
		if len(r.items) == 0 {
			return
		}
		r2, err := parseStatus(httpx.JSON(again))
		if err != nil || cmp.Diff(r.items, r2.items) != "" || r2.device != r.device {
			t.Fatalf("%q is understood as %q, and that otherwise (%v)", body, httpx.JSON(again), err)
		}
	})
}

// FuzzPull holds that a query is refused, or is a pull within the bounds that reads the same when it is written out.
func FuzzPull(f *testing.F) {
	for _, seed := range []string{
		"", "limit=20&wait=30&device=MyPhone", "limit=-1", "limit=1e9", "limit=99999999999999999999", "wait=-9223372036854775809",
		"device=%ff", "device=a%00", "device=%C3%A9", "limit=0x10", "limit=+5", "limit=%20", "limit=1&limit=2", "%zz", "a;b", "limit=٣",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, _ := url.ParseQuery(query) // what cannot be read is left out, as net/http does
		pull, err := parsePull(values)
		if err != nil {
			refusedAsItShould(t, err)
			return
		}
		if pull.Limit < 1 || pull.Limit > maxLimit || pull.Wait < 0 || pull.Wait > messages.MaxWait || !isDevice(pull.Device) || pull.Policy != streams.Retry {
			t.Fatalf("%q is %+v", query, pull)
		}
		again, err := parsePull(url.Values{
			"device": {pull.Device}, "limit": {fmt.Sprint(pull.Limit)}, "wait": {fmt.Sprint(int(pull.Wait / time.Second))},
		})
		if diff := cmp.Diff(pull, again); err != nil || diff != "" {
			t.Fatalf("%q reads otherwise when written out: %v\n%s", query, err, diff)
		}
	})
}

// FuzzKey holds that a key is refused, or stands for itself: two keys, or two bodies, are never taken for one.
func FuzzKey(f *testing.F) {
	for _, seed := range []string{"k", "", " ", "a b", "\x00", "é", "\xff", "key/k", strings.Repeat("k", 256)} {
		f.Add(seed, []byte("[]"))
	}
	f.Fuzz(func(t *testing.T, text string, body []byte) {
		key, err := parseKey(http.Header{"Idempotency-Key": {text}}, body, queueRequest{})
		if err != nil {
			refusedAsItShould(t, err)
			return
		}
		if key.ID != "key/"+text || len(text) == 0 || len(text) > 255 || strings.Trim(text, printable) != "" {
			t.Fatalf("%q is taken as %q", text, key.ID)
		}
		other, err := parseKey(http.Header{"Idempotency-Key": {text}}, append([]byte(" "), body...), queueRequest{})
		if err != nil || other.Hash == key.Hash || len(key.Hash) != 64 {
			t.Fatalf("another body has the hash %s too, %v", other.Hash, err)
		}
	})
}

// printable are the characters of a key.
var printable = func() string {
	var all strings.Builder
	for c := ' '; c <= '~'; c++ {
		all.WriteRune(c)
	}
	return all.String()
}()

// The edges of what a number and a device's name may be.
func TestParse_Edges(t *testing.T) {
	for phone, want := range map[string]string{
		"123456": "", "+123456": "", strings.Repeat("1", 20): "", "+" + strings.Repeat("1", 20): "",
		"12345": "Invalid phone format", "+12345": "Invalid phone format", strings.Repeat("1", 21): "Invalid phone format",
		"": "Phone is required", "++123456": "Invalid phone format", "１２３４５６": "Invalid phone format", "123456\n": "Invalid phone format",
	} {
		r, err := parseQueue(httpx.JSON([]map[string]string{{"phone": phone, "message": "a"}}))
		switch {
		case err != nil:
			t.Errorf("%q: %v", phone, err)
		case want == "" && len(r.drafts) != 1, want != "" && (len(r.out.Errors) != 1 || r.out.Errors[0].Error != want):
			t.Errorf("%q: got %+v, want %q", phone, r.out, want)
		}
	}
	for name, want := range map[string]bool{strings.Repeat("x", 15): true, strings.Repeat("é", 15): true, strings.Repeat("x", 16): false, "a\x7f": false, "\u0085": false} {
		if _, err := parsePull(url.Values{"device": {name}}); (err == nil) != want {
			t.Errorf("device %q in a query: got %v", name, err)
		}
		if _, err := parseStatus(httpx.JSON(map[string]any{"device": name, "messages": []int{1}})); (err == nil) != want {
			t.Errorf("device %q in a body: got %v", name, err)
		}
	}
}
