package smsgate

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/services/ingress/core"
	"github.com/trunkline-sms/trunkline/streams"
)

// began is the time of every test, and of the message that the documents of the API show.
var began = time.Date(2026, 5, 17, 9, 32, 11, 421_000_000, time.UTC)

var (
	firstID = streams.FirstIDAt(began)
	phone   = streams.Device{ID: 0xa1, Name: "Pixel", Created: began.Add(-48 * time.Hour), LastSeen: began.Add(-90 * time.Minute)}
	tablet  = streams.Device{ID: 0xa2, Name: "Tab", Created: began.Add(-24 * time.Hour)}
)

var (
	_ Core = (*core.Core)(nil)
	_ Core = (*fake)(nil)
)

// fake is a core that remembers what it was asked, and gives what the test wants.
type fake struct {
	account  streams.Account
	device   streams.DeviceID // whose own login comes
	rate     core.Rate
	err      error // of everything but admitting
	admitErr error
	sessions map[string][]string // scopes by access or renew token
	groups   []core.Group
	total    int
	hooks    []core.Webhook
	stored   json.RawMessage // settings
	calls    []string

	enqueued core.Enqueue
	browsed  core.Browse
	ttl      time.Duration
	scopes   []string
	hook     core.Webhook
}

func (f *fake) called(what ...string) error {
	f.calls = append(f.calls, strings.Join(what, " "))
	return f.err
}

func (f *fake) AdmitLogin(_ context.Context, said core.Credentials, _ core.Use) (core.Caller, core.Rate, error) {
	name, password := said.Name, said.Password
	if name != "LOGIN" || password.Reveal() != "PASS:WORD" {
		return core.Caller{}, core.Rate{}, fault.New(fault.Unauthenticated, "invalid_login", "Invalid credentials")
	}
	caller := core.Caller{Account: &f.account, Subscribed: !f.account.Subscription.None, Login: name, Device: f.device}
	return caller, f.rate, f.admitErr
}

func (f *fake) AdmitSession(_ context.Context, token secret.String, _ core.Use) (core.Session, core.Rate, error) {
	scopes, ok := f.sessions[token.Reveal()]
	if !ok {
		return core.Session{}, core.Rate{}, fault.New(fault.Unauthenticated, "invalid_session", "Invalid or expired token")
	}
	return core.Session{Caller: core.Caller{Account: &f.account, Subscribed: true, Login: "LOGIN"}, Scopes: scopes}, f.rate, f.admitErr
}

func (f *fake) tokens() core.Tokens {
	return core.Tokens{ID: "jti", Access: "access", Renew: "renew", Expires: began.Add(time.Hour)}
}

func (f *fake) BeginSession(_ context.Context, _ core.Caller, ttl time.Duration, scopes []string) (core.Tokens, error) {
	f.ttl, f.scopes = ttl, scopes
	return f.tokens(), f.called("begin")
}

func (f *fake) RenewSession(_ context.Context, _ core.Session, token secret.String) (core.Tokens, error) {
	return f.tokens(), f.called("renew", token.Reveal())
}

func (f *fake) EndSession(_ context.Context, _ core.Caller, id string) error {
	return f.called("end", id)
}

func (f *fake) Enqueue(_ context.Context, cmd core.Enqueue) (core.Accepted, error) {
	f.enqueued = cmd
	accepted := core.Accepted{}
	for i := range cmd.Drafts {
		accepted.IDs = append(accepted.IDs, firstID+streams.MessageID(i))
	}
	return accepted, f.called("enqueue")
}

func (f *fake) group(ref string) (core.Group, error) {
	for _, g := range f.groups {
		if g.Name == ref || g.ID.String() == ref {
			return g, nil
		}
	}
	return core.Group{}, fault.New(fault.NotFound, "not_found", "Message not found")
}

func (f *fake) Group(_ context.Context, _ core.Caller, ref string) (core.Group, error) {
	if err := f.called("group", ref); err != nil {
		return core.Group{}, err
	}
	return f.group(ref)
}

func (f *fake) Groups(_ context.Context, q core.Browse) ([]core.Group, int, error) {
	f.browsed = q
	return f.groups, f.total, f.called("groups")
}

func (f *fake) Cancel(_ context.Context, _ core.Caller, ref string) (core.Group, error) {
	if err := f.called("cancel", ref); err != nil {
		return core.Group{}, err
	}
	for i := range f.groups {
		if g := &f.groups[i]; g.Name == ref {
			g.State = streams.Cancelled
			for j := range g.Messages {
				g.Messages[j].State = g.State
			}
		}
	}
	return f.group(ref)
}

func (f *fake) Devices(context.Context, core.Caller) ([]streams.Device, error) {
	return []streams.Device{phone, tablet}, f.called("devices")
}

func (f *fake) RemoveDevice(_ context.Context, _ core.Caller, device streams.DeviceID) error {
	return f.called("remove device", device.String())
}

func (f *fake) Webhooks(context.Context, core.Caller) ([]core.Webhook, error) {
	return f.hooks, f.called("webhooks")
}

func (f *fake) PutWebhook(_ context.Context, _ core.Caller, w core.Webhook) error {
	f.hook = w
	return f.called("put webhook")
}

func (f *fake) RemoveWebhook(_ context.Context, _ core.Caller, id string) error {
	return f.called("remove webhook", id)
}

func (f *fake) Settings(context.Context, core.Caller) (json.RawMessage, error) {
	return f.stored, f.called("settings")
}

func (f *fake) ChangeSettings(_ context.Context, _ core.Caller, change func(json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error) {
	if err := f.called("change settings"); err != nil {
		return nil, err
	}
	stored, err := change(f.stored)
	if err == nil {
		f.stored = stored
	}
	return stored, err
}

// server is the dialect over a fake, and the errors that it left for the log.
type server struct {
	*fake
	handler http.Handler
	logged  []string
}

func newServer() *server { return newServerBehind(httpx.NewLimiter(8, 64<<20)) }

func newServerBehind(limiter *httpx.Limiter) *server {
	gin.SetMode(gin.ReleaseMode)
	s := &server{fake: &fake{account: streams.Account{ID: 7, Name: "shop", Region: "US"}, sessions: map[string][]string{}}}
	r := gin.New()
	r.HandleMethodNotAllowed = true
	r.Use(func(c *gin.Context) {
		c.Next()
		for _, err := range c.Errors {
			s.logged = append(s.logged, err.Error())
		}
	})
	health := httpx.NewHealth("1.2.3", 1)
	health.Register("nats:connection", func(context.Context) httpx.Check {
		return httpx.Check{Description: "Connected", ObservedUnit: "boolean", ObservedValue: 1, Status: httpx.Pass}
	})
	Mount(r, s.fake, Options{Senders: limiter, Answers: httpx.NewLimiter(0, 1<<30), Health: health.Mount, Now: func() time.Time { return began }})
	s.handler = r
	return s
}

// login is the header of the account's login.
const login = "Basic TE9HSU46UEFTUzpXT1JE" // LOGIN:PASS:WORD

// reply is an answer.
type reply struct {
	status int
	header http.Header
	body   string
}

// call sends a request; auth is its Authorization.
func (s *server) call(auth, method, path, body string) reply {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return reply{w.Code, w.Header(), w.Body.String()}
}

// want holds an answer to a status and a body, and every answer to what clients rely on.
func want(t *testing.T, got reply, status int, body string) {
	t.Helper()
	if got.status != status || got.body != body {
		t.Errorf("got %d %s\nwant %d %s", got.status, got.body, status, body)
	}
	kind := got.header.Get("Content-Type")
	if got.body == "" && kind != "" || got.body != "" && kind != "application/json" {
		t.Errorf("got %q as the type of %d bytes", kind, len(got.body))
	}
}

// wantCalls holds the core to what was asked of it.
func (s *server) wantCalls(t *testing.T, calls ...string) {
	t.Helper()
	if !slices.Equal(s.calls, calls) {
		t.Errorf("the core was asked %q, want %q", s.calls, calls)
	}
}

// token gives the header of a session for scopes.
func (s *server) token(scopes ...string) string {
	name := strings.Join(scopes, "+")
	s.sessions[name] = slices.Clone(scopes)
	return "Bearer " + name
}

// prefixes are the addresses of the API.
func prefixes() []string {
	all := map[string]bool{}
	for _, f := range forms {
		all[f.prefix] = true
	}
	return slices.Sorted(maps.Keys(all))
}
