package nodes_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/api/nodes"
	"github.com/trunkline-sms/trunkline/services/ingress/core"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// standIn is a core of one account, "shop", with its own login "shop" and that of a phone, "pixel".
type standIn struct {
	suspended, lapsed bool

	enqueue  func(core.Enqueue) (core.Accepted, error)
	sequence func(streams.MessageID) (uint64, error)
	states   func(asked int) ([]streams.State, error) // of the group, when it is asked for so often
	online   bool

	asked int
	got   []core.Enqueue
}

const pixel = streams.DeviceID(7)

func (s *standIn) AdmitLogin(_ context.Context, said core.Credentials, _ core.Use) (core.Caller, core.Rate, error) {
	name, password := said.Name, said.Password
	caller := core.Caller{Account: &streams.Account{ID: 1, Name: "shop"}, Subscribed: !s.lapsed, Login: name}
	if name == "pixel" {
		caller.Device = pixel
	}
	switch {
	case name == "busy":
		f := fault.New(fault.RateLimited, "rate_limited", "Too many requests")
		f.RetryAfter = 1500 * time.Millisecond
		return core.Caller{}, core.Rate{Limit: 60, Reset: time.Minute}, f
	case name != "shop" && name != "pixel", password.Reveal() != "correct horse":
		return core.Caller{}, core.Rate{}, fault.New(fault.Unauthenticated, "invalid_login", "Who are you?")
	case s.suspended:
		return core.Caller{}, core.Rate{}, fault.New(fault.Forbidden, "account_suspended", "The account is suspended")
	}
	return caller, core.Rate{Limit: 60, Remaining: 59, Reset: time.Second}, nil
}

func (s *standIn) Enqueue(_ context.Context, cmd core.Enqueue) (core.Accepted, error) {
	s.got = append(s.got, cmd)
	if s.enqueue != nil {
		return s.enqueue(cmd)
	}
	accepted := core.Accepted{First: 5, Shard: 3}
	for i := range cmd.Drafts {
		accepted.IDs = append(accepted.IDs, streams.MessageID(0x10+i))
	}
	return accepted, nil
}

func (s *standIn) Sequence(_ context.Context, _ core.Caller, id streams.MessageID) (uint64, error) {
	return s.sequence(id)
}

func (s *standIn) Group(_ context.Context, _ core.Caller, ref string) (core.Group, error) {
	if ref != "0000000000000010" {
		return core.Group{}, errors.New("no such group")
	}
	s.asked++
	states, err := s.states(s.asked)
	var g core.Group
	for _, state := range states {
		g.Messages = append(g.Messages, core.Member{State: state})
	}
	return g, err
}

func (s *standIn) DeviceOnline(context.Context, core.Caller) bool { return s.online }
func (s *standIn) Online() int                                    { return 3 }

// handler serves a stand-in.
func handler(s *standIn, change ...func(*nodes.Options)) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	o := nodes.Options{
		Logins: httpx.NewLimiter(16, 1<<20), Senders: httpx.NewLimiter(16, 1<<20),
		Encryption: "none", Ready: func(context.Context) bool { return true },
		Now: func() time.Time { return time.Date(2026, 1, 15, 10, 30, 0, 5, time.UTC) },
	}
	for _, f := range change {
		f(&o)
	}
	r := gin.New()
	nodes.Mount(r, s, o)
	return r
}

// post sends a body to send-sms.
func post(t *testing.T, h http.Handler, body io.Reader) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/api/send-sms", body))
	return w
}

func request(login, fields string) io.Reader {
	return strings.NewReader(`{"deviceUsername":"` + login + `","password":"correct horse",` + fields + `}`)
}

const (
	one = `"phoneNumbers":["+1234567890"],"message":"a"`
	two = `"phoneNumbers":["+1234567890","+0987654321"],"message":"a","priority":4`
)

func TestSend(t *testing.T) {
	content := func(phone string) core.Content { return core.Content{Phone: event.Private(phone), Text: "a"} }
	tests := []struct {
		name, login, fields string
		core                standIn
		want                string
		drafts              []core.Draft
	}{
		{"the phone's login", "pixel", two, standIn{}, `{"message":"SMS queued successfully","messageId":323,"deviceOnline":false,"sentImmediately":false}`,
			[]core.Draft{
				{Content: content("+1234567890"), Lane: streams.Lane{Target: pixel, Priority: streams.High}},
				{Content: content("+0987654321"), Lane: streams.Lane{Target: pixel, Priority: streams.High}},
			}},
		{"the account's login", "shop", one, standIn{}, `{"message":"SMS queued successfully","messageId":323,"deviceOnline":false,"sentImmediately":false}`,
			[]core.Draft{{Content: content("+1234567890"), Lane: streams.Lane{Priority: streams.Normal}}}},
		{"only that it is stored is known", "shop", one, standIn{
			enqueue: func(core.Enqueue) (core.Accepted, error) {
				return core.Accepted{IDs: []streams.MessageID{9}, Shard: 1}, nil
			},
			sequence: func(id streams.MessageID) (uint64, error) { return uint64(id), nil },
		}, `{"message":"SMS queued successfully","messageId":577,"deviceOnline":false,"sentImmediately":false}`,
			[]core.Draft{{Content: content("+1234567890"), Lane: streams.Lane{Priority: streams.Normal}}}},
		{"and nobody tells where", "shop", one, standIn{
			enqueue: func(core.Enqueue) (core.Accepted, error) {
				return core.Accepted{IDs: []streams.MessageID{9}, Shard: 1}, nil
			},
			sequence: func(streams.MessageID) (uint64, error) { return 0, errors.New("no answer") },
		}, `{"message":"SMS queued successfully","messageId":0,"deviceOnline":false,"sentImmediately":false}`,
			[]core.Draft{{Content: content("+1234567890"), Lane: streams.Lane{Priority: streams.Normal}}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			res := post(t, handler(&test.core), request(test.login, test.fields))
			if res.Code != http.StatusOK || res.Body.String() != test.want {
				t.Errorf("got %d %s, want 200 %s", res.Code, res.Body, test.want)
			}
			if res.Header().Get("Ratelimit-Remaining") != "59" || res.Header().Get("Content-Type") != "application/json; charset=utf-8" {
				t.Errorf("got headers %v", res.Header())
			}
			if len(test.core.got) != 1 {
				t.Fatalf("got %d requests to the core, want 1", len(test.core.got))
			}
			cmd := test.core.got[0]
			if diff := cmp.Diff(test.drafts, cmd.Drafts); diff != "" {
				t.Errorf("drafts (-want +got):\n%s", diff)
			}
			if cmd.Group != (len(test.drafts) > 1) || cmd.Key != nil || cmd.Name != "" || !cmd.Due.IsZero() || !cmd.Until.IsZero() {
				t.Errorf("got %+v", cmd)
			}
		})
	}
}

func TestSend_Refused(t *testing.T) {
	storing := func(kind fault.Kind, after time.Duration) standIn {
		return standIn{enqueue: func(core.Enqueue) (core.Accepted, error) {
			f := fault.New(kind, "code", "Try again")
			f.RetryAfter = after
			return core.Accepted{}, f
		}}
	}
	tests := []struct {
		name   string
		core   standIn
		body   io.Reader
		status int
		want   string
		retry  string
	}{
		{"no login", standIn{}, strings.NewReader(`{` + one + `}`), 400, "Username and password are required", ""},
		{"no JSON", standIn{}, strings.NewReader(`a`), 400, "The body is not valid JSON", ""},
		{"another's login", standIn{}, request("eve", one), 401, "Invalid credentials", ""},
		{"a wrong request of nobody", standIn{}, request("eve", `"message":5`), 401, "Invalid credentials", ""},
		{"a wrong request", standIn{}, request("shop", `"phoneNumbers":["1"],"message":"a"`), 400, "A phone number must have 6 to 20 digits, optionally after a +", ""},
		{"suspended", standIn{suspended: true}, request("shop", one), 403, "The account is suspended", ""},
		{"no subscription", standIn{lapsed: true}, request("shop", one), 403, "No active subscription", ""},
		{"no subscription, and wrong", standIn{lapsed: true}, request("shop", `"message":5`), 403, "No active subscription", ""},
		{"too large", standIn{}, io.LimitReader(zeros{}, 64<<10+1), 413, "The body may have at most 65536 bytes", ""},
		{"too many requests", standIn{}, request("busy", one), 429, "Too many requests", "2"},
		{"the month's limit", storing(fault.LimitExceeded, 0), request("shop", one), 429, "SMS limit exceeded for this month", ""},
		{"full", storing(fault.Full, 30*time.Second), request("shop", one), 503, "Try again", "30"},
		{"perhaps stored", storing(fault.UnknownOutcome, time.Second), request("shop", one), 500, "Try again", ""},
		{"not stored", storing(fault.Unavailable, time.Second), request("shop", one), 503, "Try again", "1"},
		{"a bug", standIn{enqueue: func(core.Enqueue) (core.Accepted, error) {
			return core.Accepted{}, errors.New("secret-text")
		}}, request("shop", one), 500, "Database error", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			res := post(t, handler(&test.core), test.body)
			if want := `{"error":"` + test.want + `"}`; res.Code != test.status || res.Body.String() != want {
				t.Errorf("got %d %s, want %d %s", res.Code, res.Body, test.status, want)
			}
			if got := res.Header().Get("Retry-After"); got != test.retry {
				t.Errorf("got Retry-After %q, want %q", got, test.retry)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// A body of the largest size is read, and again for its place among the account's.
func TestSend_Largest(t *testing.T) {
	body, err := io.ReadAll(request("shop", one))
	if err != nil {
		t.Fatal(err)
	}
	body = append(body, bytes.Repeat([]byte(" "), 64<<10-len(body))...)
	if res := post(t, handler(&standIn{}), bytes.NewReader(body)); res.Code != http.StatusOK {
		t.Errorf("got %d %s, want 200", res.Code, res.Body)
	}
}

// What an account has under way at a time is bounded, whatever its logins are.
func TestSend_Overloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		s := &standIn{enqueue: func(core.Enqueue) (core.Accepted, error) {
			<-hold
			return core.Accepted{}, errors.New("over")
		}}
		h := handler(s, func(o *nodes.Options) { o.Senders = httpx.NewLimiter(2, 1<<20) })
		go post(t, h, request("shop", one))
		synctest.Wait()
		res := post(t, h, request("pixel", one))
		if res.Code != http.StatusServiceUnavailable || res.Header().Get("Retry-After") != "1" {
			t.Errorf("got %d %s, want 503", res.Code, res.Body)
		}
		close(hold)
		synctest.Wait()
	})
}

func TestSend_SentImmediately(t *testing.T) {
	const pending, leased = streams.Pending, streams.Leased
	tests := []struct {
		name   string
		online bool
		states func(asked int) ([]streams.State, error)
		want   bool
		after  time.Duration
		asked  int
	}{
		{"nobody is there", false, nil, false, 0, 0},
		{"taken at once", true, func(int) ([]streams.State, error) { return []streams.State{leased, leased}, nil }, true, 0, 1},
		{"taken one after the other", true, func(n int) ([]streams.State, error) {
			return []streams.State{leased, []streams.State{pending, pending, leased}[n-1]}, nil
		}, true, 40 * time.Millisecond, 3},
		{"never taken", true, func(int) ([]streams.State, error) { return []streams.State{leased, pending}, nil }, false, 300 * time.Millisecond, 16},
		{"cancelled meanwhile", true, func(int) ([]streams.State, error) { return []streams.State{leased, streams.Cancelled}, nil }, false, 0, 1},
		{"not known", true, func(int) ([]streams.State, error) { return nil, errors.New("no answer") }, false, 0, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &standIn{online: test.online, states: test.states}
				began := time.Now()
				res := post(t, handler(s), request("pixel", two))
				want := `"deviceOnline":false,"sentImmediately":false}`
				if test.online {
					want = `"deviceOnline":true,"sentImmediately":false}`
				}
				if test.want {
					want = `"deviceOnline":true,"sentImmediately":true}`
				}
				if res.Code != http.StatusOK || !strings.HasSuffix(res.Body.String(), want) {
					t.Errorf("got %d %s, want 200 with %s", res.Code, res.Body, want)
				}
				if after := time.Since(began); after != test.after || s.asked > test.asked {
					t.Errorf("got an answer after %v, having asked %d times, want %v and at most %d", after, s.asked, test.after, test.asked)
				}
			})
		})
	}
}

func TestHealth(t *testing.T) {
	tests := []struct {
		name, url string
		ready     bool
		status    int
		want      string
	}{
		{"ready", "http://example.org/api/health", true, 200,
			`{"status":"healthy","timestamp":"2026-01-15T10:30:00Z","ssl":false,"encryption":"none","connectedDevices":3}`},
		{"over TLS", "https://example.org/api/health", true, 200,
			`{"status":"healthy","timestamp":"2026-01-15T10:30:00Z","ssl":true,"encryption":"none","connectedDevices":3}`},
		{"not ready", "http://example.org/api/health", false, 503,
			`{"status":"unhealthy","timestamp":"2026-01-15T10:30:00Z","ssl":false,"encryption":"none","connectedDevices":3}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := handler(&standIn{}, func(o *nodes.Options) { o.Ready = func(context.Context) bool { return test.ready } })
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", test.url, nil))
			if w.Code != test.status || w.Body.String() != test.want {
				t.Errorf("got %d %s, want %d %s", w.Code, w.Body, test.status, test.want)
			}
			if got := w.Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("got Cache-Control %q, want no-store", got)
			}
		})
	}
}
