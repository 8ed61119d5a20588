package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
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
)

// What testdata shows on the wire is not repeated here: these are the edges.

func TestParseQueue_Text(t *testing.T) {
	tests := []struct {
		name, item string
		want       string
		wrong      string
	}{
		{"1000 characters", `"message":"` + strings.Repeat("x", 1000) + `"`, strings.Repeat("x", 1000), ""},
		{"1000 characters of 4 bytes", `"message":"` + strings.Repeat("😀", 1000) + `"`, strings.Repeat("😀", 1000), ""},
		{"1000 characters of 12 bytes as written", `"message":"` + strings.Repeat(`\ud83d\ude00`, 1000) + `"`, strings.Repeat("😀", 1000), ""},
		{"1001 characters", `"message":"` + strings.Repeat("é", 1001) + `"`, "", "Message is too long (max 1000 characters)"},
		{"message wins", `"text":"b","message":"a"`, "a", ""},
		{"message wins however wrong", `"text":"b","message":1`, "", "Message must be a string"},
		{"text stands in for nothing", `"text":"b","message":""`, "b", ""},
		{"text stands in for null", `"message":null,"text":"b"`, "b", ""},
		{"the last of a name counts", `"message":"a","message":"b"`, "b", ""},
		{"spaces are a text", `"message":" "`, " ", ""},
		{"names are read whatever their case", `"MESSAGE":"a"`, "a", ""},
		{"a wrong one that is corrected", `"message":1,"message":"b"`, "b", ""},
		{"every escape", `"message":"\"\\\/\b\f\n\r\t\u0041\u00E9"`, "\"\\/\b\f\n\r\tAé", ""},
		{"U+FFFD", `"message":"\ufffd�"`, "��", ""},
		{"U+FFFD and half a pair as text", `"message":"�\\ud83d"`, `�\ud83d`, ""},
		{"U+FFFD and a pair", `"message":"�\uD83D\uDE00"`, "�😀", ""},
		{"a first half", `"message":"\uD83D"`, "", "Message is not valid Unicode"},
		{"a second half", `"message":"a\ude00"`, "", "Message is not valid Unicode"},
		{"two first halves", `"message":"\ud83d\ud83d\ude00"`, "", "Message is not valid Unicode"},
		{"half a pair after a backslash", `"message":"\\\ud83d"`, "", "Message is not valid Unicode"},
		{"half a pair in what is not read", `"message":"a","text":"\ud83d"`, "a", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := parseQueue([]byte(`{"phone":"123456",` + test.item + `}`))
			if err != nil {
				t.Fatal(err)
			}
			if test.wrong != "" {
				if diff := cmp.Diff([]refusedOut{{0, test.wrong}}, r.out.Errors); diff != "" || len(r.drafts) != 0 {
					t.Errorf("got %d drafts and (-want +got):\n%s", len(r.drafts), diff)
				}
				return
			}
			if len(r.out.Errors) != 0 || len(r.drafts) != 1 || r.drafts[0].Text.Reveal() != test.want {
				t.Errorf("got %d drafts and %v", len(r.drafts), r.out.Errors)
			}
		})
	}
}

func TestParseQueue_Refuses(t *testing.T) {
	list := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	tests := []struct {
		name, body string
		want       error
	}{
		{"1000 items", list(1000), nil},
		{"1001 items", list(1001), errTooMany},
		{"as many as fit", list(maxBody / 2), errTooMany},
		{"nested deeply", deep(1000), nil},
		{"nested too deeply", deep(100_000), errJSON},
		{"something behind", `[{}] x`, errJSON},
		{"a second value", `{} {}`, errJSON},
		{"a comma too many", `[{},]`, errJSON},
		{"not UTF-8", "[{\"a\":\"\xff\"}]", errJSON},
		{"a byte order mark", "\ufeff[]", errJSON},
		{"spaces", " \r\n\t[ ] ", errEmpty},
		{"null", `null`, errShape},
		{"a number", `5`, errShape},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := parseQueue([]byte(test.body)); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestParseKey(t *testing.T) {
	for key, want := range map[string]bool{
		strings.Repeat("k", 255): true, strings.Repeat("k", 256): false, "": false, " ~": true, "a\tb": false, "a\x7f": false, "é": false,
	} {
		_, err := parseKey(http.Header{"Idempotency-Key": {key}}, nil, queueRequest{})
		if (err == nil) != want {
			t.Errorf("%q: got %v", key, err)
		}
	}
	if key, err := parseKey(http.Header{}, nil, queueRequest{}); key != nil || err != nil {
		t.Errorf("no header: got %v, %v", key, err)
	}
	if _, err := parseKey(http.Header{"Idempotency-Key": {"a", "b"}}, nil, queueRequest{}); err == nil {
		t.Error("two keys are taken")
	}
}

func TestParsePull(t *testing.T) {
	base := messages.Pull{Limit: 20, Policy: streams.Retry}
	with := func(change func(*messages.Pull)) messages.Pull { p := base; change(&p); return p }
	tests := []struct {
		query string
		want  messages.Pull
		err   error
	}{
		{"", base, nil},
		{"limit=&wait=&device=", base, nil},
		{"limit=200", with(func(p *messages.Pull) { p.Limit = 200 }), nil},
		{"limit=201", with(func(p *messages.Pull) { p.Limit = 200 }), nil},
		{"limit=99999999999999999999", with(func(p *messages.Pull) { p.Limit = 200 }), nil},
		{"limit=-99999999999999999999", messages.Pull{}, errLimit},
		{"limit=1.5", messages.Pull{}, errLimit},
		{"wait=30", with(func(p *messages.Pull) { p.Wait = 30 * time.Second }), nil},
		{"wait=3600", with(func(p *messages.Pull) { p.Wait = 30 * time.Second }), nil},
		{"wait=99999999999999999999", with(func(p *messages.Pull) { p.Wait = 30 * time.Second }), nil},
		{"wait=0.5", messages.Pull{}, errWait},
		{"device=%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9", with(func(p *messages.Pull) { p.Device = strings.Repeat("é", 15) }), nil},
		{"device=%FF", messages.Pull{}, errDevice},
		{"device=a%0Ab", messages.Pull{}, errDevice},
	}
	for _, test := range tests {
		t.Run(test.query, func(t *testing.T) {
			query, err := url.ParseQuery(test.query)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parsePull(query)
			if !errors.Is(err, test.err) {
				t.Fatalf("got error %v, want %v", err, test.err)
			}
			if diff := cmp.Diff(test.want, got); test.err == nil && diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseStatus_TooMany(t *testing.T) {
	list := func(n int) []byte {
		return []byte(`{"messages":[` + strings.TrimSuffix(strings.Repeat(`{"hash":"a1b2c3d4e5f67890","status":2},`, n), ",") + `]}`)
	}
	if r, err := parseStatus(list(1000)); err != nil || len(r.items) != 1000 {
		t.Errorf("1000: got %d, %v", len(r.items), err)
	}
	if _, err := parseStatus(list(1001)); !errors.Is(err, errTooMany) {
		t.Errorf("1001: got %v", err)
	}
}

func TestParseStatus_Refuses(t *testing.T) {
	for body, want := range map[string]error{
		`null`: errShape, `5`: errShape, `{"messages":null}`: errMessages, `{"messages":[{}],"messages":5}`: errMessages,
		`{"device":"\ud83d","messages":[{}]}`: errDevice, `{"device":null,"messages":[{}]}`: nil, `{"messages":[{}]} {}`: errJSON,
	} {
		if _, err := parseStatus([]byte(body)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", body, err, want)
		}
	}
}

func TestCheckReport_Status(t *testing.T) {
	for status, want := range map[string]streams.State{
		`2`: streams.Delivered, `3`: streams.Failed, `2.0`: 0, `2e0`: 0, `"2"`: 0, `null`: 0, `[2]`: 0, `18446744073709551618`: 0,
	} {
		r, err := parseStatus([]byte(`{"messages":[{"hash":"a1b2c3d4e5f67890","status":` + status + `}]}`))
		if err != nil {
			t.Fatal(err)
		}
		if want == 0 && len(r.problems) != 1 || want != 0 && (len(r.items) != 1 || r.items[0].State != want) {
			t.Errorf("%s: got %v and %v", status, r.items, r.problems)
		}
	}
}

// Problems of both kinds are told in the order of the request, and no more of a hash than is needed.
func TestStatusRequest_answer(t *testing.T) {
	long := strings.Repeat("é", 100)
	r, err := parseStatus([]byte(`{"messages":[{"hash":"` + long + `","status":2},5,{"hash":"b","status":2},{"hash":"c","status":9},{"hash":"d","status":3}]}`))
	if err != nil {
		t.Fatal(err)
	}
	got := r.answer(messages.Reported{Updated: 1, Problems: []messages.Problem{{Index: 0, Why: messages.Unknown}, {Index: 2, Why: messages.NotHeld}}})
	want := statusOut{true, 1, []problemOut{
		{0, strings.Repeat("é", 32), "Unknown hash"},
		{1, "", "Status update must be an object"},
		{3, "c", "Status must be 2 or 3"},
		{4, "d", "Message is not with this device"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for why := range messages.NotHeld + 1 {
		if whys[why] == "" {
			t.Errorf("reason %d has no text", why)
		}
	}
}

func TestRefusal(t *testing.T) {
	for kind, want := range map[fault.Kind]int{
		fault.Internal: 500, fault.Invalid: 422, fault.TooLarge: 413, fault.Unauthenticated: 401, fault.Forbidden: 403, fault.NotFound: 404,
		fault.Conflict: 409, fault.Mismatch: 422, fault.LimitExceeded: 429, fault.RateLimited: 429, fault.Full: 503, fault.Unavailable: 503,
		fault.UnknownOutcome: 503, "from a later version": 500,
	} {
		if got, _ := refusal(fault.New(kind, "code", "Text")); got != want {
			t.Errorf("%s: got %d, want %d", kind, got, want)
		}
	}
}

// FuzzQueue holds that every item is either taken or refused, that what is taken is as the rules say and is taken
// alike when it is sent as it was understood, and that the answer is JSON of the documented form.
func FuzzQueue(f *testing.F) {
	for _, seed := range []string{
		`[{"phone":"+1234567890","message":"Hello"},{"phone":"0712345678","text":"a\u00e9\ud83d\ude00"}]`,
		`{"phone":"123456","message":"x"}`, `[{"phone":1},{},[],null,"x"]`, `[]`, `{`, `"\ud83d"`, `[{"phone":"123456","message":"\ud83d"}]`,
		`[{"phone":"123456","message":"a","text":{"a":[1,2,{"b":null}]}}]`, "[{\"phone\":\"123456\",\"message\":\"\xff\"}]",
		`[{"phone":"123456","message":"\ufffd\u2028<&>\\ud83d"}]`, `{"phone":"123456","Message":"b","message":null,"text":"c"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseQueue(body)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %v", err)
			}
			return
		}
		taken := map[int]bool{}
		type sent struct{ Phone, Message string }
		var again []sent
		for i, d := range r.drafts {
			if text := d.Text.Reveal(); text == "" || !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxText {
				t.Fatalf("took text %q", text)
			}
			if !phoneForm.MatchString(d.Phone.Reveal()) || r.out.Items[i].Phone != d.Phone.Reveal() {
				t.Fatalf("took phone %q", d.Phone.Reveal())
			}
			taken[r.out.Items[i].Index] = true
			again = append(again, sent{d.Phone.Reveal(), d.Text.Reveal()})
		}
		for _, e := range r.out.Errors {
			if taken[e.Index] || e.Error == "" {
				t.Fatalf("item %d is taken and refused: %q", e.Index, e.Error)
			}
			taken[e.Index] = true
		}
		for i := range len(taken) {
			if !taken[i] {
				t.Fatalf("item %d is neither taken nor refused", i)
			}
		}
		checkQueued(t, r.answer(make([]streams.MessageID, len(r.drafts))), len(r.drafts), len(r.out.Errors))
		if len(again) == 0 {
			return
		}
		r2, err := parseQueue(httpx.JSON(again))
		if err != nil || !slices.Equal(r2.drafts, r.drafts) {
			t.Fatalf("%q is understood as %q, and that otherwise (%v)", body, httpx.JSON(again), err)
		}
	})
}

// checkQueued reads POST queue's answer as a client does.
func checkQueued(t *testing.T, answer []byte, queued, failed int) {
	t.Helper()
	var got struct {
		OK             bool
		Queued, Failed int
		Items          []struct {
			Index *int
			Hash  streams.MessageID
			Phone string
		}
		Errors []struct {
			Index *int
			Error string
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil {
		t.Fatalf("%v in %s", err, answer)
	}
	if got.OK != (queued > 0) || got.Queued != queued || got.Failed != failed || len(got.Items) != queued || len(got.Errors) != failed {
		t.Fatalf("got %s, want %d queued and %d failed", answer, queued, failed)
	}
	for _, item := range got.Items {
		if item.Index == nil || !phoneForm.MatchString(item.Phone) {
			t.Fatalf("got item %+v", item)
		}
	}
}
