package queueapi

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/services/ingress/core"
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
		{"names are case-sensitive", `"Message":"a"`, "", "Message is required"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in, err := parseQueue([]byte(`{"phone":"123456",` + test.item + `}`))
			if err != nil {
				t.Fatal(err)
			}
			if test.wrong != "" {
				if len(in.drafts) != 0 || len(in.errors) != 1 || in.errors[0].text != test.wrong {
					t.Errorf("got %v, want %q", in.errors, test.wrong)
				}
				return
			}
			if len(in.errors) != 0 || len(in.drafts) != 1 || in.drafts[0].Text.Reveal() != test.want {
				t.Errorf("got %d drafts and %v", len(in.drafts), in.errors)
			}
		})
	}
}

func TestParseKey(t *testing.T) {
	for key, want := range map[string]bool{
		strings.Repeat("k", 255): true, strings.Repeat("k", 256): false, "": false, " ~": true, "a\tb": false, "a\x7f": false, "é": false,
	} {
		_, err := parseKey(http.Header{"Idempotency-Key": {key}}, nil, queueIn{})
		if (err == nil) != want {
			t.Errorf("%q: got %v", key, err)
		}
	}
	if key, err := parseKey(http.Header{}, nil, queueIn{}); key != nil || err != nil {
		t.Errorf("no header: got %v, %v", key, err)
	}
	if _, err := parseKey(http.Header{"Idempotency-Key": {"a", "b"}}, nil, queueIn{}); err == nil {
		t.Error("two keys are taken")
	}
}

func TestParsePull(t *testing.T) {
	base := core.Pull{Limit: 20, Policy: streams.Retry}
	with := func(change func(*core.Pull)) core.Pull { p := base; change(&p); return p }
	tests := []struct {
		query string
		want  core.Pull
		err   error
	}{
		{"", base, nil},
		{"limit=&wait=&device=", base, nil},
		{"limit=200", with(func(p *core.Pull) { p.Limit = 200 }), nil},
		{"limit=201", with(func(p *core.Pull) { p.Limit = 200 }), nil},
		{"limit=99999999999999999999", with(func(p *core.Pull) { p.Limit = 200 }), nil},
		{"limit=-99999999999999999999", core.Pull{}, errLimit},
		{"limit=1.5", core.Pull{}, errLimit},
		{"wait=30", with(func(p *core.Pull) { p.Wait = 30 * time.Second }), nil},
		{"wait=3600", with(func(p *core.Pull) { p.Wait = 30 * time.Second }), nil},
		{"wait=99999999999999999999", with(func(p *core.Pull) { p.Wait = 30 * time.Second }), nil},
		{"wait=0.5", core.Pull{}, errWait},
		{"device=%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9", with(func(p *core.Pull) { p.Device = strings.Repeat("é", 15) }), nil},
		{"device=%FF", core.Pull{}, errDevice},
		{"device=a%0Ab", core.Pull{}, errDevice},
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
	if in, err := parseStatus(list(1000)); err != nil || len(in.items) != 1000 {
		t.Errorf("1000: got %d, %v", len(in.items), err)
	}
	if _, err := parseStatus(list(1001)); !errors.Is(err, errTooMany) {
		t.Errorf("1001: got %v", err)
	}
}

// Problems of both kinds are told in the order of the request, and no more of a hash than is needed.
func TestReportsIn_answer(t *testing.T) {
	long := strings.Repeat("é", 100)
	in, err := parseStatus([]byte(`{"messages":[{"hash":"` + long + `","status":2},5,{"hash":"b","status":2},{"hash":"c","status":9},{"hash":"d","status":3}]}`))
	if err != nil {
		t.Fatal(err)
	}
	got := in.answer(core.Reported{Updated: 1, Problems: []core.Problem{{Index: 0, Why: core.Unknown}, {Index: 2, Why: core.NotHeld}}})
	want := updatedOut{true, 1, []problemOut{
		{0, strings.Repeat("é", 32), "Unknown hash"},
		{1, "", "Status update must be an object"},
		{3, "c", "Status must be 2 or 3"},
		{4, "d", "Message is not with this device"},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for why := range core.NotHeld + 1 {
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

// FuzzQueue holds that every item is either taken or refused, that what is taken is as the rules say, and that the
// answer is JSON of the documented form.
func FuzzQueue(f *testing.F) {
	for _, seed := range []string{
		`[{"phone":"+1234567890","message":"Hello"},{"phone":"0712345678","text":"a\u00e9\ud83d\ude00"}]`,
		`{"phone":"123456","message":"x"}`, `[{"phone":1},{},[],null,"x"]`, `[]`, `{`, `"\ud83d"`, `[{"phone":"123456","message":"\ud83d"}]`,
		`[{"phone":"123456","message":"a","text":{"a":[1,2,{"b":null}]}}]`, "[{\"phone\":\"123456\",\"message\":\"\xff\"}]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := parseQueue(body)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %v", err)
			}
			return
		}
		taken := map[int]bool{}
		for i, d := range in.drafts {
			if text := d.Text.Reveal(); text == "" || !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxText {
				t.Fatalf("took text %q", text)
			}
			if !isPhone(d.Phone.Reveal()) || in.items[i].phone != d.Phone.Reveal() {
				t.Fatalf("took phone %q", d.Phone.Reveal())
			}
			taken[in.items[i].index] = true
		}
		for _, e := range in.errors {
			if taken[e.index] || e.text == "" {
				t.Fatalf("item %d is taken and refused: %q", e.index, e.text)
			}
			taken[e.index] = true
		}
		for i := range len(taken) {
			if !taken[i] {
				t.Fatalf("item %d is neither taken nor refused", i)
			}
		}
		checkQueued(t, in.answer(make([]streams.MessageID, len(in.drafts))), len(in.drafts), len(in.errors))
	})
}
