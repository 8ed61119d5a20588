package smsgate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/core"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	uuid   = "c6f1f7cc-97c1-44a2-99fb-83c4b3f9ef4c"
	sample = `{
  "phoneNumbers": ["+12025550100"],
  "textMessage": { "text": "Hello from API" },
  "withDeliveryReport": true
}`
)

// one is a group of one message that the account has.
func one(state streams.State, steps ...core.Step) core.Group {
	m := core.Member{ID: firstID, Content: core.Content{Phone: "+12025550100", Text: "Hello from API"}, State: state, Steps: steps}
	return core.Group{ID: firstID, Name: uuid, State: state, Device: phone.ID, Messages: []core.Member{m}}
}

func step(state streams.State, after time.Duration) core.Step {
	return core.Step{At: began.Add(after), State: state}
}

// What the documents of the API show, with what they do not speak of behind it.
func TestDocumented(t *testing.T) {
	s := newServer()
	id := firstID.String()
	want(t, s.call(login, "POST", "/api/3rdparty/v1/messages", sample), 200,
		`{"id":"`+id+`","state":"Pending","createdAt":"2026-05-17T09:32:11.421Z",`+
			`"recipients":[{"phoneNumber":"+12025550100","state":"Pending","error":null}],"deviceId":"","isHashed":false,"isEncrypted":false,`+
			`"states":{"Pending":"2026-05-17T09:32:11.421Z"},"textMessage":{"text":"Hello from API"}}`)
	if diff := cmp.Diff(core.Enqueue{
		Caller: core.Caller{Account: &s.account, Subscribed: true, Login: "LOGIN"}, Group: true,
		Drafts: []core.Draft{{Content: core.Content{Phone: "+12025550100", Text: "Hello from API"}, Lane: streams.Lane{Priority: streams.Normal}}},
	}, s.enqueued); diff != "" {
		t.Errorf("enqueued (-want +got):\n%s", diff)
	}

	s.groups, s.total = []core.Group{one(streams.Pending)}, 41
	list := s.call(login, "GET", "/api/3rdparty/v1/messages?skip=0&limit=20", "")
	if got := list.header.Get("X-Total-Count"); got != "41" {
		t.Errorf("got a total of %q", got)
	}
	want(t, list, 200, `[{"id":"`+uuid+`","state":"Pending","createdAt":"2026-05-17T09:32:11.421Z",`+
		`"recipients":[{"phoneNumber":"+12025550100","state":"Pending","error":null}],"deviceId":"00000000000000a1","isHashed":false,`+
		`"isEncrypted":false,"states":{"Pending":"2026-05-17T09:32:11.421Z"}}]`)

	s.groups = []core.Group{one(streams.Delivered, step(streams.Leased, time.Second), step(streams.Delivered, time.Minute))}
	want(t, s.call(login, "GET", "/api/3rdparty/v1/messages/"+uuid, ""), 200,
		`{"id":"`+uuid+`","state":"Delivered","createdAt":"2026-05-17T09:32:11.421Z",`+
			`"recipients":[{"phoneNumber":"+12025550100","state":"Delivered","error":null}],"deviceId":"00000000000000a1","isHashed":false,`+
			`"isEncrypted":false,"states":{"Delivered":"2026-05-17T09:33:11.421Z","Pending":"2026-05-17T09:32:11.421Z",`+
			`"Processed":"2026-05-17T09:32:12.421Z"},"textMessage":{"text":"Hello from API"}}`)
}

// The same as the official server says it: 202, a Location, and no error where there is none.
func TestOfficial(t *testing.T) {
	s := newServer()
	body := `{"id":"a b","message":"Hi","phoneNumbers":["(202) 555-0100"],"deviceId":"00000000000000a1","priority":100}`
	answer := s.call(login, "POST", "/3rdparty/v1/messages?", body)
	if got := answer.header.Get("Location"); got != "/3rdparty/v1/messages/a%20b" {
		t.Errorf("got the location %q", got)
	}
	want(t, answer, 202, `{"id":"a b","state":"Pending","createdAt":"2026-05-17T09:32:11.421Z",`+
		`"recipients":[{"phoneNumber":"+12025550100","state":"Pending"}],"deviceId":"00000000000000a1","isHashed":false,"isEncrypted":false,`+
		`"states":{"Pending":"2026-05-17T09:32:11.421Z"},"textMessage":{"text":"Hi"}}`)
	if lane := s.enqueued.Drafts[0].Lane; lane != (streams.Lane{Target: phone.ID, Priority: streams.High}) || s.enqueued.Name != "a b" {
		t.Errorf("enqueued %q in %s", s.enqueued.Name, lane)
	}

	s.groups = []core.Group{one(streams.Expired)}
	want(t, s.call(login, "GET", "/3rdparty/v1/message/"+firstID.String(), ""), 200,
		`{"id":"`+uuid+`","state":"Failed","createdAt":"2026-05-17T09:32:11.421Z",`+
			`"recipients":[{"phoneNumber":"+12025550100","state":"Failed","error":"TTL expired"}],"deviceId":"00000000000000a1","isHashed":false,`+
			`"isEncrypted":false,"states":{"Pending":"2026-05-17T09:32:11.421Z"},"textMessage":{"text":"Hello from API"}}`)

	s.groups, s.total = nil, 0
	want(t, s.call(login, "GET", "/3rdparty/v1/messages", ""), 200, `[]`)
	if s.browsed.Limit != 50 {
		t.Errorf("got a limit of %d", s.browsed.Limit)
	}
}

// A cancel is over when it is answered, but its answer uses the word that clients wait with.
func TestCancel(t *testing.T) {
	s := newServer()
	s.groups = []core.Group{one(streams.Pending)}
	const after = `","createdAt":"2026-05-17T09:32:11.421Z","recipients":[{"phoneNumber":"+12025550100","state":"Cancelled"}],` +
		`"deviceId":"00000000000000a1","isHashed":false,"isEncrypted":false,"states":{"Pending":"2026-05-17T09:32:11.421Z"},` +
		`"textMessage":{"text":"Hello from API"}}`
	want(t, s.call(login, "DELETE", "/3rdparty/v1/message/"+uuid, ""), 200, `{"id":"`+uuid+`","state":"Cancelling`+after)
	s.wantCalls(t, "cancel "+uuid)
	want(t, s.call(login, "GET", "/3rdparty/v1/message/"+uuid, ""), 200, `{"id":"`+uuid+`","state":"Cancelled`+after)
	want(t, s.call(login, "DELETE", "/3rdparty/v1/messages/nobody", ""), 404, `{"message":"message not found"}`)
	s.err = fault.New(fault.Conflict, "not_pending", "The message is not pending")
	want(t, s.call(login, "DELETE", "/3rdparty/v1/messages/"+uuid, ""), 409, `{"message":"message is not pending"}`)
}

// Every route, what it needs, and that it needs no more.
func TestScopes(t *testing.T) {
	routes := []struct {
		method, path, scope, body string
		status                    int
	}{
		{"POST", "/auth/token", "tokens:manage", `{"scopes":["tokens:manage"]}`, 201},
		{"DELETE", "/auth/token/x", "tokens:manage", "", 204},
		{"POST", "/messages", "messages:send", sample, 0},
		{"POST", "/message", "messages:send", sample, 0},
		{"GET", "/messages", "messages:list", "", 200},
		{"GET", "/message", "messages:list", "", 200},
		{"GET", "/messages/" + uuid, "messages:read", "", 200},
		{"GET", "/message/" + uuid, "messages:read", "", 200},
		{"DELETE", "/messages/" + uuid, "messages:cancel", "", 200},
		{"DELETE", "/message/" + uuid, "messages:cancel", "", 200},
		{"POST", "/messages/inbox/export", "messages:export", refresh, 202},
		{"POST", "/message/inbox/export", "messages:export", refresh, 202},
		{"GET", "/inbox", "inbox:list", "", 501},
		{"POST", "/inbox/refresh", "inbox:refresh", refresh, 202},
		{"POST", "/inbox/export", "inbox:refresh", refresh, 202},
		{"GET", "/devices", "devices:list", "", 200},
		{"GET", "/device", "devices:list", "", 200},
		{"DELETE", "/devices/00000000000000a1", "devices:delete", "", 204},
		{"DELETE", "/device/00000000000000a1", "devices:delete", "", 204},
		{"GET", "/webhooks", "webhooks:list", "", 200},
		{"POST", "/webhooks", "webhooks:write", `{"url":"https://example.org","event":"sms:sent"}`, 201},
		{"DELETE", "/webhooks/x", "webhooks:delete", "", 204},
		{"GET", "/settings", "settings:read", "", 200},
		{"PUT", "/settings", "settings:write", "{}", 200},
		{"PATCH", "/settings", "settings:write", "{}", 200},
		{"GET", "/logs", "logs:read", "", 501},
	}
	for _, prefix := range prefixes() {
		for _, r := range routes {
			t.Run(r.method+" "+prefix+r.path, func(t *testing.T) {
				s := newServer()
				s.groups = []core.Group{one(streams.Pending)}
				path, refused := prefix+r.path, `{"message":"scope required: `+r.scope+`"}`
				want(t, s.call("", r.method, path, r.body), 401, `{"message":"Unauthorized"}`)
				want(t, s.call(s.token("other", "tokens:refresh"), r.method, path, r.body), 403, refused)
				s.wantCalls(t)
				status := r.status
				if status == 0 {
					status = map[string]int{"/3rdparty/v1": 202, "/api/3rdparty/v1": 200}[prefix]
				}
				for _, auth := range []string{login, s.token("all:any"), s.token("other", r.scope)} {
					if got := s.call(auth, r.method, path, r.body); got.status != status {
						t.Errorf("%s: got %d, want %d", auth, got.status, status)
					}
				}
			})
		}
		t.Run("POST "+prefix+"/auth/token/refresh", func(t *testing.T) {
			s := newServer()
			path := prefix + "/auth/token/refresh"
			want(t, s.call("", "POST", path, ""), 401, `{"message":"Unauthorized"}`)
			for _, auth := range []string{login, s.token("all:any"), s.token("tokens:manage")} {
				want(t, s.call(auth, "POST", path, ""), 403, `{"message":"scope required: tokens:refresh"}`)
			}
			s.wantCalls(t)
			want(t, s.call(s.token("tokens:refresh"), "POST", path, ""), 201, tokensBody)
			s.wantCalls(t, "renew tokens:refresh")
		})
	}
}

// A token gives others no more than it has itself.
func TestScopes_OfNewSessions(t *testing.T) {
	for _, prefix := range prefixes() {
		s := newServer()
		both := s.token("tokens:manage", "messages:send")
		for body, refused := range map[string]string{
			`{"scopes":["all:any"]}`:                             "all:any",
			`{"scopes":["messages:read"]}`:                       "messages:read",
			`{"scopes":["messages:send","settings:write"]}`:      "settings:write",
			`{"scopes":["tokens:refresh","messages:send"]}`:      "tokens:refresh",
			`{"scopes":["messages:send","messages:send\u0000"]}`: "messages:send\\u0000",
		} {
			want(t, s.call(both, "POST", prefix+"/auth/token", body), 403, `{"message":"scope required: `+refused+`"}`)
		}
		s.wantCalls(t)
		for auth, body := range map[string]string{
			both:               `{"scopes":["messages:send"]}`,
			login:              `{"scopes":["all:any"]}`,
			s.token("all:any"): `{"scopes":["all:any","messages:send"]}`,
		} {
			want(t, s.call(auth, "POST", prefix+"/auth/token", body), 201, tokensBody)
		}
	}
}

const tokensBody = `{"id":"jti","token_type":"Bearer","access_token":"access","refresh_token":"renew","expires_at":"2026-05-17T10:32:11.421Z"}`

func TestAccess(t *testing.T) {
	const nobody = `{"message":"Unauthorized"}`
	for name, auth := range map[string]string{
		"nothing": "", "no base64": "Basic !", "no colon": "Basic TE9HSU4=", "another password": "Basic TE9HSU46eA==", "another scheme": "Digest a",
		"no token": "Bearer ", "a token of nobody": "Bearer x", "a token alone": "all:any",
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer()
			s.token("all:any")
			answer := s.call(auth, "GET", "/3rdparty/v1/devices", "")
			if got := answer.header.Get("WWW-Authenticate"); got != "" {
				t.Errorf("got a challenge %q, with which a browser asks for a password", got)
			}
			want(t, answer, 401, nobody)
			s.wantCalls(t)
		})
	}
	t.Run("schemes are read whatever their case", func(t *testing.T) {
		s := newServer()
		for _, auth := range []string{strings.Replace(login, "Basic", "bAsIc", 1), strings.Replace(s.token("all:any"), "Bearer", "bEaReR", 1)} {
			if got := s.call(auth, "GET", "/3rdparty/v1/devices", ""); got.status != 200 {
				t.Errorf("%s: got %d", auth, got.status)
			}
		}
	})
	t.Run("a phone's own login", func(t *testing.T) {
		s := newServer()
		s.device = phone.ID
		want(t, s.call(login, "GET", "/3rdparty/v1/devices", ""), 401, nobody)
		s.wantCalls(t)
	})
	t.Run("a suspended account", func(t *testing.T) {
		s := newServer()
		s.admitErr = fault.New(fault.Forbidden, "account_suspended", "The account is suspended")
		want(t, s.call(login, "GET", "/3rdparty/v1/devices", ""), 403, `{"message":"The account is suspended"}`)
	})
	t.Run("no subscription", func(t *testing.T) {
		s := newServer()
		s.account.Subscription.None = true
		want(t, s.call(login, "POST", "/3rdparty/v1/messages", sample), 403, `{"message":"No active subscription"}`)
		s.wantCalls(t)
	})
	t.Run("too many requests", func(t *testing.T) {
		s := newServer()
		s.rate = core.Rate{Limit: 60, Reset: time.Minute}
		s.admitErr = &fault.Error{Kind: fault.RateLimited, Code: "rate_limited", Text: "Too many requests", RetryAfter: 1500 * time.Millisecond}
		answer := s.call(login, "GET", "/3rdparty/v1/devices", "")
		for name, value := range map[string]string{"RateLimit-Limit": "60", "RateLimit-Remaining": "0", "RateLimit-Reset": "60", "Retry-After": "2"} {
			if got := answer.header.Get(name); got != value {
				t.Errorf("%s: got %q, want %q", name, got, value)
			}
		}
		want(t, answer, 429, `{"message":"Too many requests"}`)
	})
}

func TestSessions(t *testing.T) {
	s := newServer()
	answer := s.call(login, "POST", "/3rdparty/v1/auth/token", `{"ttl":60,"scopes":["messages:send","all:any"]}`)
	if got := answer.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("tokens may be cached: %q", got)
	}
	want(t, answer, 201, tokensBody)
	if s.ttl != time.Minute || !slices.Equal(s.scopes, []string{"messages:send", "all:any"}) {
		t.Errorf("began one of %v for %q", s.ttl, s.scopes)
	}
	want(t, s.call(login, "POST", "/3rdparty/v1/auth/token", `{"ttl":18446744073709551615,"scopes":["a"]}`), 201, tokensBody)
	if s.ttl != core.MaxAccess {
		t.Errorf("began one of %v", s.ttl)
	}
	for body, why := range map[string]string{
		`{}`:                        `failed to validate: scopes must name one scope or more`,
		`{"scopes":[]}`:             `failed to validate: scopes must name one scope or more`,
		`{"scopes":["a",""]}`:       `failed to validate: scopes must not be empty`,
		`{"scopes":"a"}`:            `failed to parse body: scopes has the wrong type`,
		`{"scopes":["a"],"ttl":-1}`: `failed to parse body: ttl has the wrong type`,
		``:                          `failed to parse body: it is not valid JSON`,
	} {
		want(t, s.call(login, "POST", "/3rdparty/v1/auth/token", body), 400, `{"message":"`+why+`"}`)
	}
	s.calls = nil
	want(t, s.call(login, "DELETE", "/3rdparty/v1/auth/token/abc", ""), 204, "")
	s.wantCalls(t, "end abc")
}

func TestDevices(t *testing.T) {
	s := newServer()
	want(t, s.call(login, "GET", "/3rdparty/v1/devices", ""), 200, `[`+
		`{"id":"00000000000000a1","name":"Pixel","createdAt":"2026-05-15T09:32:11.421Z","updatedAt":"2026-05-17T08:02:11.421Z","lastSeen":"2026-05-17T08:02:11.421Z"},`+
		`{"id":"00000000000000a2","name":"Tab","createdAt":"2026-05-16T09:32:11.421Z","updatedAt":"2026-05-16T09:32:11.421Z","lastSeen":"2026-05-16T09:32:11.421Z"}]`)
	want(t, s.call(login, "DELETE", "/3rdparty/v1/devices/00000000000000a1", ""), 204, "")
	want(t, s.call(login, "DELETE", "/3rdparty/v1/devices/x", ""), 204, "")
	s.wantCalls(t, "devices", "remove device 00000000000000a1")
}

func TestWebhooks(t *testing.T) {
	s := newServer()
	want(t, s.call(login, "GET", "/3rdparty/v1/webhooks", ""), 200, `[]`)
	s.hooks = []core.Webhook{{ID: "a", URL: "https://example.org/?a&b", Event: "sms:sent"}, {ID: "b", Device: phone.ID, URL: "https://example.org", Event: "app:started"}}
	want(t, s.call(login, "GET", "/3rdparty/v1/webhooks", ""), 200,
		`[{"id":"a","deviceId":null,"url":"https://example.org/?a&b","event":"sms:sent"},`+
			`{"id":"b","deviceId":"00000000000000a1","url":"https://example.org","event":"app:started"}]`)
	want(t, s.call(login, "POST", "/3rdparty/v1/webhooks", `{"id":"a","deviceId":null,"url":"HTTPS://example.org","event":"system:ping"}`), 201,
		`{"id":"a","deviceId":null,"url":"HTTPS://example.org","event":"system:ping"}`)
	want(t, s.call(login, "POST", "/3rdparty/v1/webhooks", `{"id":"a","device_id":"00000000000000a2","url":"https://example.org","event":"system:ping"}`), 201,
		`{"id":"a","deviceId":"00000000000000a2","url":"https://example.org","event":"system:ping"}`)
	if s.hook.Device != tablet.ID {
		t.Errorf("stored %+v", s.hook)
	}
	s.err = fault.New(fault.Conflict, "too_many_webhooks", "The account has 100 webhooks already")
	want(t, s.call(login, "POST", "/3rdparty/v1/webhooks", `{"url":"https://example.org","event":"sms:sent"}`), 409,
		`{"message":"The account has 100 webhooks already"}`)
	if len(s.hook.ID) != 21 {
		t.Errorf("got the id %q", s.hook.ID)
	}
	s.err, s.calls = nil, nil
	want(t, s.call(login, "DELETE", "/3rdparty/v1/webhooks/a%20b", ""), 204, "")
	s.wantCalls(t, "remove webhook a b")
}

func TestSettings(t *testing.T) {
	s := newServer()
	path := "/3rdparty/v1/settings"
	want(t, s.call(login, "GET", path, ""), 200, `{}`)
	want(t, s.call(login, "PUT", path, `{"messages":{"limit_value":5,"limitPeriod":"PerDay"},"ping":{"interval_seconds":30}}`), 200,
		`{"messages":{"limit_period":"PerDay","limit_value":5},"ping":{"interval_seconds":30}}`)
	want(t, s.call(login, "PATCH", path, `{"messages":{"limit_value":null,"processingOrder":"FIFO"},"ping":null,"logs":{}}`), 200,
		`{"logs":{},"messages":{"limit_period":"PerDay","processing_order":"FIFO"}}`)
	want(t, s.call(login, "GET", path, ""), 200, `{"logs":{},"messages":{"limit_period":"PerDay","processing_order":"FIFO"}}`)
	want(t, s.call(login, "PATCH", path, `{"messages":{"limit_value":0}}`), 400,
		`{"message":"failed to validate: messages.limit_value must be a number from 1 to 2147483647"}`)
	want(t, s.call(login, "PUT", path, `{"receiver":{"content_provider_enabled":false}}`), 200, `{"receiver":{"content_provider_enabled":false}}`)
	s.stored = json.RawMessage(`{"messages":"SECRET`)
	want(t, s.call(login, "PATCH", path, `{}`), 500, `{"message":"Internal error"}`)
	if log := fmt.Sprint(s.logged); !strings.Contains(log, "stored settings") || strings.Contains(log, "SECRET") {
		t.Errorf("logged %s", log)
	}
}

// refresh is a body that asks phones what they have received.
const refresh = `{"since":"2026-11-21T06:00:00Z","until":"2026-11-21T07:00:00Z","deviceId":"unknown","messageTypes":["SMS"],"webhookDelivery":"Batch"}`

func TestRefreshInbox(t *testing.T) {
	s := newServer()
	for path, deprecated := range map[string]string{"/inbox/refresh": "", "/inbox/export": "", "/messages/inbox/export": "true", "/message/inbox/export": "true"} {
		got := s.call(login, "POST", "/3rdparty/v1"+path, refresh)
		if got.status != 202 || got.body != "Accepted" || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") || got.header.Get("Deprecation") != deprecated {
			t.Errorf("%s: got %+v", path, got)
		}
	}
	for body, why := range map[string]string{
		`{}`: "since and until are required",
		`{"since":"x","until":"2026-11-21T07:00:00Z"}`:                                                        "since must be a time as in RFC 3339",
		`{"since":"2026-11-21T07:00:00Z","until":"x"}`:                                                        "until must be a time as in RFC 3339",
		`{"since":"2026-11-21T07:00:00Z","until":"2026-11-21T06:00:00Z"}`:                                     "until must not be before since",
		`{"since":"2026-11-21T06:00:00Z","until":"2026-11-21T07:00:00Z","deviceId":"0123456789012345678901"}`: "deviceId must have at most 21 characters",
		`{"since":"2026-11-21T06:00:00Z","until":"2026-11-21T07:00:00Z","messageTypes":["RCS"]}`:              "messageTypes must be SMS or MMS",
		`{"since":"2026-11-21T06:00:00Z","until":"2026-11-21T07:00:00Z","webhookDelivery":"Often"}`:           "webhookDelivery must be Disabled, Individual or Batch",
	} {
		want(t, s.call(login, "POST", "/3rdparty/v1/inbox/refresh", body), 400, `{"message":"failed to validate: `+why+`"}`)
	}
	s.wantCalls(t)
}

func TestAbsent(t *testing.T) {
	s := newServer()
	const inbox = `{"message":"Inbox API is not implemented yet"}`
	want(t, s.call(login, "GET", "/3rdparty/v1/inbox?limit=5", ""), 501, inbox)
	want(t, s.call(login, "GET", "/3rdparty/v1/logs", ""), 501,
		`{"message":"For privacy reasons, device's logs are not accessible through Cloud server"}`)
	s.wantCalls(t)
}

// Client programs read integers there.
func TestHealth(t *testing.T) {
	s := newServer()
	for _, prefix := range prefixes() {
		for _, path := range []string{"/health", "/health/live", "/health/ready", "/health/startup"} {
			answer := s.call("", "GET", prefix+path, "")
			var got struct {
				Status, Version string
				ReleaseID       int `json:"releaseId"`
				Checks          map[string]struct {
					ObservedValue int
					Status        string
				}
			}
			err := json.Unmarshal([]byte(answer.body), &got)
			if err != nil || answer.status != 200 || got.Status != "pass" || got.Version != "1.2.3" || got.ReleaseID != 1 || len(got.Checks) == 0 {
				t.Errorf("%s: got %d %+v, %v", prefix+path, answer.status, got, err)
			}
		}
	}
}

func TestFaults(t *testing.T) {
	s := newServer()
	for _, test := range []struct {
		err    error
		status int
		body   string
		retry  string
	}{
		{fault.New(fault.Conflict, "duplicate_id", "A message with this id exists already"), 409, "message with the same ID already exists", ""},
		{&fault.Error{Kind: fault.LimitExceeded, Code: "limit_exceeded", Text: "The monthly limit of messages is reached", RetryAfter: time.Minute}, 429, "The monthly limit of messages is reached", "60"},
		{&fault.Error{Kind: fault.Full, Code: "queue_full", Text: "The queue is full", RetryAfter: 30 * time.Second}, 503, "The queue is full", "30"},
		{&fault.Error{Kind: fault.Unavailable, Code: "not_stored", Text: "Nothing was stored, try again", RetryAfter: time.Second}, 503, "Nothing was stored, try again", "1"},
		{fault.New(fault.Invalid, "invalid_schedule", "A message can be scheduled at most 21 days ahead"), 400, "A message can be scheduled at most 21 days ahead", ""},
		{errors.New("a bug"), 500, "Internal error", ""},
	} {
		s.err = test.err
		answer := s.call(login, "POST", "/3rdparty/v1/messages", sample)
		if got := answer.header.Get("Retry-After"); got != test.retry {
			t.Errorf("%v: got Retry-After %q, want %q", test.err, got, test.retry)
		}
		want(t, answer, test.status, `{"message":"`+test.body+`"}`)
	}
	if log := strings.Join(s.logged, "\n"); log != "queue_full: The queue is full\nnot_stored: Nothing was stored, try again\na bug" {
		t.Errorf("logged\n%s", log)
	}
}

// Bodies are bounded, each kind by its own size, and refused before they are read where the length is known.
func TestBodies(t *testing.T) {
	s := newServer()
	for _, test := range []struct {
		method, path, body string
		size, status       int
	}{
		{"POST", "/messages", sample, 4 << 20, 202}, {"POST", "/messages", sample, 4<<20 + 1, 413},
		{"POST", "/auth/token", `{"scopes":["a"]}`, 64 << 10, 201}, {"POST", "/auth/token", `{"scopes":["a"]}`, 64<<10 + 1, 413},
		{"POST", "/webhooks", `{"url":"https://example.org","event":"sms:sent"}`, 64 << 10, 201}, {"POST", "/webhooks", `{}`, 64<<10 + 1, 413},
		{"PUT", "/settings", `{}`, 64 << 10, 200}, {"PATCH", "/settings", `{}`, 64<<10 + 1, 413},
	} {
		body := test.body + strings.Repeat(" ", test.size-len(test.body))
		answer := s.call(login, test.method, "/3rdparty/v1"+test.path, body)
		if answer.status != test.status {
			t.Errorf("%s %s of %d bytes: got %d, want %d", test.method, test.path, test.size, answer.status, test.status)
		}
		if test.status == 413 {
			want(t, answer, 413, fmt.Sprintf(`{"message":"The body may have at most %d bytes"}`, test.size-1))
		}
	}
	r := httptest.NewRequest("POST", "/3rdparty/v1/messages", io.MultiReader(strings.NewReader(sample), errReader{}))
	r.Header.Set("Authorization", login)
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	if w.Code != 400 || w.Body.String() != `{"message":"The body broke off"}` {
		t.Errorf("a body that breaks off: got %d %s", w.Code, w.Body)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestOverloaded(t *testing.T) {
	s := newServerBehind(httpx.NewLimiter(0, 0))
	for _, path := range []string{"/messages", "/auth/token", "/webhooks"} {
		answer := s.call(login, "POST", "/3rdparty/v1"+path, sample)
		if got := answer.header.Get("Retry-After"); got != "1" {
			t.Errorf("%s: got Retry-After %q", path, got)
		}
		want(t, answer, 503, `{"message":"Too many requests are under way, try again"}`)
	}
	s.wantCalls(t)
}

// What a request holds never comes back in what refuses it, nor in the log.
func TestNothingIsEchoed(t *testing.T) {
	const canary = "CANARY5550123"
	s := newServer()
	for _, template := range []string{
		`%q`, `{%q:1}`, `{"id":{%q:1}}`, `{"id":"a/%s"}`, `{"deviceId":%q}`, `{"phoneNumbers":%q}`, `{"phoneNumbers":[%q],"message":"a"}`,
		`{"phoneNumbers":[{"%s":1}]}`, `{"message":[%q]}`, `{"textMessage":%q}`, `{"dataMessage":{"data":%q,"port":1}}`, `{"isEncrypted":%q}`,
		`{"validUntil":%q,"phoneNumbers":["1"],"message":"a"}`, `{"scheduleAt":%q,"phoneNumbers":["1"],"message":"a"}`, `{"ttl":%q}`, `{"%s`,
		`{"scopes":{%q:1}}`, `{"url":%q}`, `{"event":%q,"url":"https://example.org"}`, `{"messages":%q}`, `{"messages":{"limit_period":%q}}`,
		`{"webhooks":{"signing_key":%q}}`, `{"url":"https://example.org","event":"sms:sent","deviceId":%q}`,
	} {
		body := fmt.Sprintf(template, canary)
		for _, path := range []string{"POST /messages", "POST /auth/token", "POST /webhooks", "PUT /settings", "POST /messages?deviceActiveWithin=" + canary} {
			method, path, _ := strings.Cut(path, " ")
			answer := s.call(login, method, "/3rdparty/v1"+path, body)
			if strings.Contains(answer.body, canary) {
				t.Errorf("%s %s: got %s", path, body, answer.body)
			}
		}
	}
	for _, query := range []string{"limit", "offset", "from", "to", "state", "deviceId", "sort", "includeContent"} {
		answer := s.call(login, "GET", "/3rdparty/v1/messages?"+query+"="+canary, "")
		if answer.status != 400 || strings.Contains(answer.body, canary) {
			t.Errorf("%s: got %d %s", query, answer.status, answer.body)
		}
	}
	if len(s.logged) != 0 {
		t.Errorf("logged %q", s.logged)
	}
}

// Routes that are not there are the server's to answer.
func TestNoRoute(t *testing.T) {
	s := newServer()
	for _, path := range []string{"POST /3rdparty/v1/logs", "GET /3rdparty/v2/messages", "GET /3rdparty/v1/messages/a/b"} {
		method, path, _ := strings.Cut(path, " ")
		if got := s.call(login, method, path, "").status; got != http.StatusNotFound && got != http.StatusMethodNotAllowed {
			t.Errorf("%s: got %d", path, got)
		}
	}
}
