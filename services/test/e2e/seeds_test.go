package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/pkg/testkit/apktest"
	"github.com/trunkline-sms/trunkline/services/accounts"
)

// accountWithLogin makes an account without a rate that has a login, too, and gives its token.
func (s *trunkline) accountWithLogin(name, login, password string) (token string) {
	s.Helper()
	plan := accounts.DefaultPlan()
	plan.Rate = 0
	s.withAccounts(func(book *accounts.Accounts) (uint64, error) {
		made, err := book.Create(s.Context(), accounts.Spec{Name: name, Plan: plan, Login: login, Password: secret.String(password)})
		token = made.Token.Reveal()
		return made.Revision, err
	})
	logs.secret(token)
	return token
}

// exchange is a request of one of the documents that the wire APIs were made from, and the answer that it shows. Where
// they stand here they stand there.
type exchange struct {
	request string   // method and path
	header  []string // name, value, …
	body    string

	status  int
	headers map[string]string
	answer  string   // with the values of its day
	exactly bool     // and these must come
	added   []string // fields beside those of the document, as in "versions[].sha256"
}

// show makes the request, compares the answer, and gives it.
func (s *trunkline) show(e exchange) answer {
	s.Helper()
	method, path, _ := strings.Cut(e.request, " ")
	header := e.header
	if e.body != "" {
		header = append([]string{"Content-Type", "application/json"}, header...)
	}
	got, err := api{s.Context(), s.client, s.url}.do(method, path, e.body, header...)
	if err != nil {
		s.Fatalf("%s: %v", e.request, err)
	}
	if got.status != e.status {
		s.Errorf("%s: got %v, want %d", e.request, got, e.status)
		return got
	}
	for name, want := range e.headers {
		if got := got.header.Get(name); got != want {
			s.Errorf("%s: got %s %q, want %q", e.request, name, got, want)
		}
	}
	if e.answer == "" {
		return got
	}
	if kind := got.header.Get("Content-Type"); !strings.HasPrefix(kind, "application/json") {
		s.Errorf("%s: got an answer of type %q", e.request, kind)
	}
	var want, have any
	if err := json.Unmarshal([]byte(e.answer), &want); err != nil {
		s.Fatalf("%s: the answer of the document: %v", e.request, err)
	}
	if err := json.Unmarshal([]byte(got.body), &have); err != nil {
		s.Errorf("%s: %v: %v", e.request, err, got)
		return got
	}
	for _, problem := range otherShape(want, have, e.exactly, e.added) {
		s.Errorf("%s: %s in %s", e.request, problem, got.body)
	}
	return got
}

// The app version calls of the queue documents.
func TestSeeds_Versions(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 1)
	s.show(exchange{
		request: "GET /api/app-version", status: http.StatusNotFound, exactly: true,
		answer: `{ "error": "No active version available", "code": "no_active_version" }`,
	})
	s.show(exchange{
		request: "GET /api/download/5", status: http.StatusNotFound, exactly: true,
		answer: `{ "error": "Version not found", "code": "version_not_found" }`,
	})
	content := s.publish(apktest.App{Version: "1.2.0", Code: 5}, "--notes=- Bug fixes\n- Performance improvements", "--activate")
	testkit.Eventually(t, "the server hears of it", func() bool { return s.download("/api/app-version").status == http.StatusOK })
	got := s.show(exchange{
		request: "GET /api/app-version", status: http.StatusOK,
		answer: `{` + versionBody + `, "releaseNotes": "- Bug fixes\n- Performance improvements" }`,
		added:  []string{"sha256", "minVersionCode", "downloads"},
	})
	var active struct {
		Version     string `json:"version"`
		VersionCode int    `json:"versionCode"`
		DownloadURL string `json:"downloadUrl"`
		Notes       string `json:"releaseNotes"`
		FileSize    int    `json:"fileSize"`
	}
	if err := json.Unmarshal([]byte(got.body), &active); err != nil || active.Version != "1.2.0" || active.VersionCode != 5 ||
		active.Notes != "- Bug fixes\n- Performance improvements" || active.FileSize != len(content) || active.DownloadURL != s.url+"/download/app.apk" {
		t.Errorf("got %v, %v", got, err)
	}
	s.show(exchange{
		request: "GET /api/app-versions", status: http.StatusOK,
		answer: `{ "versions": [ { "isActive": true, "releaseNotes": "- Bug fixes",` + versionBody + ` } ] }`,
		added:  []string{"versions[].sha256", "versions[].minVersionCode", "versions[].downloads"},
	})
	for _, path := range []string{"/download/app.apk", "/api/download/5"} {
		before := s.downloads()
		file := s.show(exchange{
			request: "GET " + path, status: http.StatusOK, headers: map[string]string{
				"Content-Type":        "application/vnd.android.package-archive",
				"Content-Disposition": `attachment; filename="app-v1.2.0.apk"`,
			},
		})
		if file.body != string(content) {
			t.Errorf("%s: got %d bytes, want %d", path, len(file.body), len(content))
		}
		testkit.Eventually(t, "the download counts", func() bool { return s.downloads() == before+1 })
	}
}

// The queue calls of the queue documents.
func TestSeeds_Queue(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 1)
	tokens := goldenAccounts(s)
	token := s.account("seeds", nil)
	got := s.show(exchange{
		request: "POST /api/" + token + "/queue", status: http.StatusOK,
		body: `[
  { "phone": "+1234567890", "message": "Hello, this is a test message" },
  { "phone": "0712345678", "message": "Another test message" }
]`,
		answer: `{
  "ok": true, "queued": 2, "failed": 0,
  "items": [
    { "index": 0, "hash": "a1b2c3d4e5f67890", "phone": "+1234567890" },
    { "index": 1, "hash": "f8e7d6c5b4a32109", "phone": "0712345678" }
  ],
  "errors": []
}`,
	})
	items := got.queued().Items
	if len(items) != 2 {
		t.Fatalf("got %v, want two items", got)
	}
	got = s.show(exchange{
		request: "GET /api/" + token + "/get_messages", status: http.StatusOK,
		answer: `[ { "phone": "+1234567890", "text": "Hello, this is a test message", "hash": "a1b2c3d4e5f67890" } ]`,
	})
	want := fmt.Sprintf(`[{"phone":"+1234567890","text":"Hello, this is a test message","hash":"%s"},{"phone":"0712345678","text":"Another test message","hash":"%s"}]`, items[0].Hash, items[1].Hash)
	if got.body != want {
		t.Errorf("got %s, want %s", got.body, want)
	}
	s.show(exchange{
		request: "POST /api/" + token + "/status", status: http.StatusOK, exactly: true,
		body: fmt.Sprintf(`{
  "device": "MyPhone",
  "messages": [ { "hash": "%s", "status": 2 }, { "hash": "%s", "status": 3 } ]
}`, items[0].Hash, items[1].Hash),
		answer: `{ "ok": true, "updated": 2 }`,
	})
	one := `[{ "phone": "+1234567890", "message": "Hello, this is a test message" }]`
	for _, e := range []exchange{
		{
			request: "POST /api/" + strings.Repeat("0", 64) + "/queue", status: http.StatusUnauthorized,
			answer: `{ "error": "Invalid API token" }`,
		},
		{
			request: "POST /api/" + tokens["unsubscribed"] + "/queue", status: http.StatusForbidden,
			answer: `{ "error": "No active subscription", "code": "subscription_required" }`,
		},
		{
			request: "POST /api/" + tokens["limited"] + "/queue", status: http.StatusTooManyRequests,
			answer: `{ "error": "SMS limit exceeded for this month", "code": "limit_exceeded", "limit": 1000, "used": 1000 }`,
		},
		{
			request: "POST /api/" + token + "/queue", status: http.StatusUnprocessableEntity,
			body:   `[{ "phone": "nobody", "message": "Hello, this is a test message" }]`,
			answer: `{ "ok": false, "queued": 0, "failed": 1, "items": [], "errors": [ { "index": 0, "error": "Invalid phone format" } ] }`,
		},
	} {
		if e.exactly = true; e.body == "" {
			e.body = one
		}
		s.show(e)
	}
	// 60 requests a minute and token, unless the account says otherwise.
	var sixty struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal([]byte(s.command("account", "create", "sixty", "--json")), &sixty); err != nil {
		t.Fatal(err)
	}
	logs.secret(sixty.Token)
	s.show(exchange{
		request: "GET /api/" + sixty.Token + "/get_messages", status: http.StatusOK,
		headers: map[string]string{"RateLimit-Limit": "60", "RateLimit-Remaining": "59"}, answer: `[]`,
	})
}

const (
	seedLogin    = "your_device_name"
	seedPassword = "your_device_password"
)

// moreOfMessage are the fields of a message that the document of the SMS API does not show.
func moreOfMessage(place string, shown ...string) (more []string) {
	for _, field := range []string{
		"state", "createdAt", "recipients", "deviceId", "isHashed", "isEncrypted", "states", "textMessage",
	} {
		if !contains(shown, field) {
			more = append(more, place+field)
		}
	}
	return more
}

// The document of the SMS API.
func TestSeeds_ThirdParty(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 1)
	token := s.accountWithLogin("seeds", seedLogin, seedPassword)
	request, err := http.NewRequest(http.MethodGet, s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth(seedLogin, seedPassword)
	basic := []string{"Authorization", request.Header.Get("Authorization")}
	const base = "/api/3rdparty/v1"

	send := exchange{
		request: "POST " + base + "/messages", header: basic, status: http.StatusOK,
		body: `{
  "phoneNumbers": ["+12025550100"],
  "textMessage": { "text": "Hello from API" },
  "withDeliveryReport": true
}`,
		answer: `{ "id": "c6f1f7cc-97c1-44a2-99fb-83c4b3f9ef4c" }`, added: moreOfMessage(""),
	}
	var sent struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(s.show(send).body), &sent); err != nil || sent.ID == "" {
		t.Fatalf("got no id: %v", err)
	}
	s.show(exchange{
		request: "GET " + base + "/messages?skip=0&limit=20", header: basic, status: http.StatusOK,
		answer: `[
  { "id": "c6f1f7cc-97c1-44a2-99fb-83c4b3f9ef4c", "state": "Pending", "createdAt": "2026-05-17T09:32:11.421Z" }
]`,
		added: moreOfMessage("[].", "state", "createdAt"),
	})
	phone := s.api(token)
	page := phone.mustPull(t, "MyPhone", 10, 0, 1)
	if updated, err := phone.report("MyPhone", success, page); err != nil || updated != 1 {
		t.Fatalf("report: got %d, %v", updated, err)
	}
	show := exchange{
		request: "GET " + base + "/messages/" + sent.ID, header: basic, status: http.StatusOK, exactly: true,
		answer: `{
  "id": "` + sent.ID + `",
  "state": "Delivered",
  "recipients": [ { "phoneNumber": "+12025550100", "state": "Delivered", "error": null } ]
}`,
		added: moreOfMessage("", "state", "recipients"),
	}
	s.show(show)

	// "Auth: JWT Bearer or Basic Auth".
	var session struct {
		Token string `json:"access_token"`
	}
	got := s.show(exchange{
		request: "POST " + base + "/auth/token", header: basic, status: http.StatusCreated,
		body: `{ "scopes": ["messages:send", "messages:list", "messages:read"] }`,
	})
	if err := json.Unmarshal([]byte(got.body), &session); err != nil || session.Token == "" {
		t.Fatalf("got no token: %v", err)
	}
	bearer := []string{"Authorization", "Bearer " + session.Token}
	show.header, send.header = bearer, bearer
	s.show(show)
	// The other sample of the document, and each of the fields that it names.
	send.body = `{"phoneNumbers":["+12025550100"],"textMessage":{"text":"Hello!"}}`
	s.show(send)
	send.body = `{"phoneNumbers":["+12025550100"],"textMessage":{"text":"Hello!"},"simNumber":1,"withDeliveryReport":false,"priority":1,` +
		`"scheduleAt":"` + tomorrow(0) + `","validUntil":"` + tomorrow(1) + `"}`
	s.show(send)
	show.header, show.status, show.answer = nil, http.StatusUnauthorized, `{ "message": "Unauthorized" }`
	s.show(show)
}

// tomorrow is a time in a day, or in so many hours more.
func tomorrow(hours int) string {
	return time.Now().Add(24*time.Hour + time.Duration(hours)*time.Hour).UTC().Format(time.RFC3339)
}

// The document of SMS Nodes.
func TestSeeds_Nodes(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 1)
	token := s.accountWithLogin("seeds", seedLogin, seedPassword)
	s.show(exchange{
		request: "POST /api/send-sms", status: http.StatusOK,
		body: `{
  "deviceUsername": "your_device_name",
  "password": "your_device_password",
  "phoneNumbers": ["+1234567890", "+0987654321"],
  "message": "Hello from SMS Nodes!",
  "priority": 1
}`,
		answer: `{ "message": "SMS queued successfully", "messageId": 123, "deviceOnline": true, "sentImmediately": true }`,
	})
	phone := s.api(token)
	isSent(t, phone.mustPull(t, "MyPhone", 10, 0, 2))

	// A phone's own login sends through that phone, and if it waits for work it has it at once.
	s.command("device", "create", "MyPhone", "--account", "seeds", "--password", seedPassword)
	pulled := make(chan []outgoing, 1)
	go func() {
		page, err := phone.pull("MyPhone", 10, 30)
		if err != nil {
			t.Error(err)
		}
		pulled <- page
	}()
	sent := s.show(exchange{
		request: "POST /api/send-sms", status: http.StatusOK,
		body:   `{"deviceUsername":"MyPhone","password":"your_device_password","phoneNumbers":["+1234567890","+0987654321"],"message":"Hello from SMS Nodes!","priority":1}`,
		answer: `{ "message": "SMS queued successfully", "messageId": 123, "deviceOnline": true, "sentImmediately": true }`,
	})
	if !strings.HasPrefix(sent.body, `{"message":"SMS queued successfully","messageId":`) || !strings.Contains(sent.body, `"deviceOnline":true`) {
		t.Errorf("got %v", sent)
	}
	isSent(t, <-pulled)
	got := s.show(exchange{
		request: "GET /api/health", status: http.StatusOK,
		answer: `{
  "status": "healthy",
  "timestamp": "2024-01-15T10:30:00Z",
  "ssl": false,
  "encryption": "AES-256-CBC with user-derived keys",
  "connectedDevices": 3
}`,
	})
	if !seconds.MatchString(got.body) {
		t.Errorf("got %v, want a healthy server and whole seconds", got)
	}
	for body, e := range map[string]exchange{
		`{ "phoneNumbers": ["+1234567890"], "message": "Hello from SMS Nodes!" }`: {
			status: http.StatusBadRequest, answer: `{ "error": "Username and password are required" }`,
		},
		`{ "deviceUsername": "your_device_name", "password": "another_password", "phoneNumbers": ["+1234567890"], "message": "Hello from SMS Nodes!" }`: {
			status: http.StatusUnauthorized, answer: `{ "error": "Invalid credentials" }`,
		},
	} {
		e.request, e.body, e.exactly = "POST /api/send-sms", body, true
		s.show(e)
	}
}

var seconds = regexp.MustCompile(`"status":"healthy","timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"`)

// isSent looks for the messages of the document at a phone.
func isSent(t *testing.T, page []outgoing) {
	t.Helper()
	var got []sms
	for _, m := range page {
		got = append(got, sms{m.Phone, m.Text})
	}
	want := []sms{{"+1234567890", "Hello from SMS Nodes!"}, {"+0987654321", "Hello from SMS Nodes!"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the phone got (-want +got):\n%s", diff)
	}
}

// The comparison must see what is different.
func TestSeeds_Shapes(t *testing.T) {
	for name, test := range map[string]struct {
		want, got string
		exactly   bool
		problems  int
	}{
		"the same":            {`{"a":1,"b":["x"]}`, `{"a":2,"b":["y","z"]}`, false, 0},
		"a field is missing":  {`{"a":1,"b":2}`, `{"a":1}`, false, 1},
		"a field too many":    {`{"a":1}`, `{"a":1,"b":2}`, false, 1},
		"one that was added":  {`{"a":1}`, `{"a":1,"added":2}`, false, 0},
		"another type":        {`{"a":1}`, `{"a":"1"}`, false, 1},
		"null":                {`{"a":null}`, `{"a":"1"}`, false, 1},
		"an item of the list": {`[{"a":1}]`, `[{"a":1},{"b":1}]`, false, 2},
		"an empty list":       {`[1]`, `[]`, false, 1},
		"two kinds of items":  {`[{"a":null},{"a":"x"}]`, `[{"a":"y"},{"a":null},{"a":"z"}]`, false, 0},
		"keys that are data":  {`{"states":{"Pending":"now"}}`, `{"states":{"Sent":"then","Failed":"later"}}`, false, 0},
		"and their values":    {`{"states":{"Pending":"now"}}`, `{"states":{"Sent":1}}`, false, 1},
		"another value":       {`{"a":1}`, `{"a":2}`, true, 1},
		"another length":      {`[1]`, `[1,2]`, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var want, got any
			if err := json.Unmarshal([]byte(test.want), &want); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(test.got), &got); err != nil {
				t.Fatal(err)
			}
			if problems := otherShape(want, got, test.exactly, []string{"added"}); len(problems) != test.problems {
				t.Errorf("got %v, want %d", problems, test.problems)
			}
		})
	}
}
