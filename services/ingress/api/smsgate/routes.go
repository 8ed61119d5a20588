// Package smsgate is the 3rdparty dialect: the API through which programs send SMS by SMSGate's server, as its client
// libraries and its documentation describe it.
package smsgate

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
	"github.com/trunkline-sms/trunkline/services/ingress/registry"
	"github.com/trunkline-sms/trunkline/streams"
)

// Backend is what the dialect needs of the ingress. Its errors are faults, or else failures of our own.
type Backend interface {
	admission
	queue
	devices
	registered
}

type admission interface {
	AdmitLogin(ctx context.Context, said access.Credentials, use access.Use) (access.Caller, access.Rate, error)
	AdmitSession(ctx context.Context, token secret.String, use access.Use) (access.Session, access.Rate, error)
	BeginSession(ctx context.Context, caller access.Caller, ttl time.Duration, scopes []string) (access.Tokens, error)
	RenewSession(ctx context.Context, s access.Session, token secret.String) (access.Tokens, error)
	EndSession(ctx context.Context, caller access.Caller, id string) error
}

type queue interface {
	Enqueue(ctx context.Context, cmd messages.Enqueue) (messages.Accepted, error)
	Group(ctx context.Context, caller access.Caller, ref string) (messages.Group, error)
	Groups(ctx context.Context, q messages.Browse) ([]messages.Group, int, error)
	Cancel(ctx context.Context, caller access.Caller, ref string) (messages.Group, error)
}

type devices interface {
	Devices(ctx context.Context, caller access.Caller) ([]streams.Device, error)
	RemoveDevice(ctx context.Context, caller access.Caller, device streams.DeviceID) error
}

type registered interface {
	Webhooks(ctx context.Context, caller access.Caller) ([]registry.Webhook, error)
	PutWebhook(ctx context.Context, caller access.Caller, w registry.Webhook) error
	RemoveWebhook(ctx context.Context, caller access.Caller, id string) error
	Settings(ctx context.Context, caller access.Caller) (json.RawMessage, error)
	ChangeSettings(ctx context.Context, caller access.Caller, change func(json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error)
}

// Options are what the dialect needs besides the Backend.
type Options struct {
	Senders *httpx.Limiter    // what bodies come in by
	Answers *httpx.Limiter    // what lists and messages go out by
	Proxies httpx.Proxies     // whose word is taken for where a request came from
	Health  func(gin.IRoutes) // adds the health routes, as httpx.Health.Mount does; nil: there are none
	Now     func() time.Time  // nil: time.Now
}

// form is how one of the two addresses of the API answers. They differ only in this.
type form struct {
	prefix   string
	accepted int  // the status of a message that was accepted
	location bool // with the address of the message
	nulls    bool // a recipient without an error has the error null
	skip     bool // lists take skip for the offset too
	limit    int  // of a list, unless it is given
}

var forms = []form{
	{prefix: "/3rdparty/v1", accepted: http.StatusAccepted, location: true, limit: 50},
	{prefix: "/api/3rdparty/v1", accepted: http.StatusOK, nulls: true, skip: true, limit: 20},
}

// Mount adds the dialect's routes, under both of its addresses.
func Mount(r gin.IRouter, c Backend, o Options) {
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, f := range forms {
		dialect{backend: c, o: o, form: f}.mount(r.Group(f.prefix))
	}
}

type dialect struct {
	backend Backend
	o       Options
	form    form
}

type handler func(*gin.Context, access.Session) error

// The scopes that the routes do not name.
const (
	everything = "all:any" // what a password is for; all scopes but renewing
	renewing   = "tokens:refresh"
)

func (d dialect) mount(r *gin.RouterGroup) {
	if d.o.Health != nil {
		d.o.Health(r)
	}
	for _, route := range []struct {
		method, path, scope string
		serve               handler
	}{
		{http.MethodPost, "/auth/token", "tokens:manage", d.beginSession},
		{http.MethodPost, "/auth/token/refresh", renewing, d.renewSession},
		{http.MethodDelete, "/auth/token/:jti", "tokens:manage", d.endSession},
		{http.MethodPost, "/messages", "messages:send", d.send},
		{http.MethodGet, "/messages", "messages:list", d.list},
		{http.MethodGet, "/messages/:id", "messages:read", d.show},
		{http.MethodDelete, "/messages/:id", "messages:cancel", d.cancel},
		{http.MethodPost, "/messages/inbox/export", "messages:export", deprecated(d.refreshInbox)},
		{http.MethodGet, "/inbox", "inbox:list", absent(noInbox)},
		{http.MethodPost, "/inbox/refresh", "inbox:refresh", d.refreshInbox},
		{http.MethodPost, "/inbox/export", "inbox:refresh", d.refreshInbox},
		{http.MethodGet, "/devices", "devices:list", d.devices},
		{http.MethodDelete, "/devices/:id", "devices:delete", d.removeDevice},
		{http.MethodGet, "/webhooks", "webhooks:list", d.webhooks},
		{http.MethodPost, "/webhooks", "webhooks:write", d.putWebhook},
		{http.MethodDelete, "/webhooks/:id", "webhooks:delete", d.removeWebhook},
		{http.MethodGet, "/settings", "settings:read", d.settings},
		{http.MethodPut, "/settings", "settings:write", d.changeSettings(replace)},
		{http.MethodPatch, "/settings", "settings:write", d.changeSettings(merge)},
		{http.MethodGet, "/logs", "logs:read", absent(noLogs)},
	} {
		for _, path := range spellings(route.path) {
			r.Handle(route.method, path, d.admitted(route.scope, route.serve))
		}
	}
}

// spellings are the paths of a route: some clients write message and device in the singular.
func spellings(path string) []string {
	all := []string{path}
	for _, plural := range []string{"/messages", "/devices"} {
		if rest, ok := strings.CutPrefix(path, plural); ok {
			all = append(all, strings.TrimSuffix(plural, "s")+rest)
		}
	}
	return all
}

var (
	errNobody = fault.New(fault.Unauthenticated, "unauthorized", unauthorized)
	errScope  = func(scope string) error {
		return fault.New(fault.Forbidden, "scope_required", "scope required: "+scope)
	}
)

// admitted calls h for a caller that has the scope, and answers with the fault of h or of the backend.
func (d dialect) admitted(scope string, h handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		s, rate, err := d.admit(c.Request)
		httpx.RateHeaders(c.Writer.Header(), rate.Limit, rate.Remaining, rate.Reset, 0)
		if err == nil && !may(s.Scopes, scope) {
			err = errScope(scope)
		}
		if err == nil {
			httpx.Admitted(c.Request.Context(), s.Account.Name)
			err = h(c, s)
		}
		if err != nil {
			refuse(c, err)
		}
	}
}

// admit finds the caller of a request, and its scopes. A phone's own login is for another dialect.
func (d dialect) admit(r *http.Request) (s access.Session, rate access.Rate, err error) {
	use := access.Posting
	if r.Method == http.MethodGet {
		use = access.Pulling
	}
	if name, password, ok := r.BasicAuth(); ok {
		s.Scopes = []string{everything}
		s.Caller, rate, err = d.backend.AdmitLogin(r.Context(), access.Credentials{Name: name, Password: secret.String(password), From: d.o.Proxies.From(r)}, use)
	} else if token := bearer(r); token != "" {
		s, rate, err = d.backend.AdmitSession(r.Context(), token, use)
	} else {
		err = errNobody
	}
	if err == nil && s.Device != 0 {
		err = errNobody
	}
	return s, rate, err
}

func bearer(r *http.Request) secret.String {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return secret.String(strings.TrimSpace(token))
}

// may says whether the scopes include the one that is needed. To renew a session takes a renew token.
func may(scopes []string, scope string) bool {
	return slices.Contains(scopes, scope) || scope != renewing && slices.Contains(scopes, everything)
}

// posted reads the body and calls f with it. If f takes more memory than the body again, f weighs that.
func (d dialect) posted(c *gin.Context, s access.Session, limit int64, f func(body []byte, place *httpx.Place) error) error {
	body, place, err := d.o.Senders.Enter(c.Writer, c.Request, limit, s.Account.Name)
	if err != nil {
		return err
	}
	defer place.Leave()
	if err := place.Weigh(int64(len(body))); err != nil { // what it says once more
		return err
	}
	return f(body, place)
}

func (d dialect) send(c *gin.Context, s access.Session) error {
	if err := s.MayEnqueue(); err != nil {
		return err
	}
	return d.posted(c, s, maxBody, func(body []byte, place *httpx.Place) error {
		in, err := parseSend(body, c.Request.URL.Query(), s.Account.Region, d.o.Now())
		if err != nil {
			return err
		}
		if in.picky() {
			devices, err := d.backend.Devices(c.Request.Context(), s.Caller)
			if err == nil {
				err = in.pick(devices)
			}
			if err != nil {
				return err
			}
		}
		if err := place.Weigh(messages.Weight(in.Drafts)); err != nil {
			return err
		}
		in.Caller = s.Caller
		accepted, err := d.backend.Enqueue(c.Request.Context(), in.Enqueue)
		if err != nil {
			return err
		}
		out := d.form.message(in.group(accepted.IDs), true)
		if d.form.location {
			c.Header("Location", d.form.prefix+"/messages/"+url.PathEscape(out.ID))
		}
		answer(c, d.form.accepted, out)
		return nil
	})
}

func (d dialect) list(c *gin.Context, s access.Session) error {
	q, nothing, err := d.form.parseList(c.Request.URL.Query(), d.o.Now())
	if err != nil {
		return err
	}
	place := d.room(c, &s)
	defer place.Leave()
	q.Caller = s.Caller
	var groups []messages.Group
	total := 0
	if !nothing {
		if groups, total, err = d.backend.Groups(c.Request.Context(), q); err != nil {
			return err
		}
	}
	out := make([]messageOut, len(groups))
	for i, g := range groups {
		out[i] = d.form.message(g, q.Content)
	}
	c.Header("X-Total-Count", strconv.Itoa(total))
	send(c, place, out)
	return nil
}

// room bounds the memory of the answer.
func (d dialect) room(c *gin.Context, s *access.Session) *httpx.Place {
	place := d.o.Answers.Answer(c.Writer, s.Account.Name)
	s.Room = place
	return place
}

func (d dialect) show(c *gin.Context, s access.Session) error {
	place := d.room(c, &s)
	defer place.Leave()
	g, err := d.backend.Group(c.Request.Context(), s.Caller, c.Param("id"))
	if err == nil {
		send(c, place, d.form.message(g, true))
	}
	return err
}

func (d dialect) cancel(c *gin.Context, s access.Session) error {
	place := d.room(c, &s)
	defer place.Leave()
	g, err := d.backend.Cancel(c.Request.Context(), s.Caller, c.Param("id"))
	if err != nil {
		return err
	}
	out := d.form.message(g, true)
	out.State = cancelling
	send(c, place, out)
	return nil
}

// refreshInbox answers a request to ask phones for received messages. It is accepted and does nothing: phones cannot be
// asked for that in the dialects of this server.
func (d dialect) refreshInbox(c *gin.Context, s access.Session) error {
	return d.posted(c, s, maxSmall, func(body []byte, _ *httpx.Place) error {
		if err := checkRefresh(body); err != nil {
			return err
		}
		c.Data(http.StatusAccepted, "text/plain; charset=utf-8", []byte("Accepted"))
		return nil
	})
}

// Unrouted answers a request without a route: in the dialect's form if its path is below one of the dialect's addresses,
// and by elsewhere if not.
func Unrouted(elsewhere gin.HandlerFunc) gin.HandlerFunc {
	return func(c *gin.Context) {
		for _, f := range forms {
			if strings.HasPrefix(strings.ToLower(c.Request.URL.Path), f.prefix+"/") {
				answer(c, http.StatusNotFound, faultOut{"Not Found"})
				return
			}
		}
		elsewhere(c)
	}
}

// absent answers a request for something that this server does not do.
func absent(why string) handler {
	return func(c *gin.Context, _ access.Session) error {
		answer(c, http.StatusNotImplemented, faultOut{why})
		return nil
	}
}

func deprecated(h handler) handler {
	return func(c *gin.Context, s access.Session) error {
		c.Header("Deprecation", "true")
		return h(c, s)
	}
}

// refuse answers with a fault. The reason of a failure of our own goes to the access log only.
func refuse(c *gin.Context, err error) {
	f := fault.As(err)
	status, body := refusal(f)
	if status >= http.StatusInternalServerError {
		_ = c.Error(err)
	}
	httpx.RateHeaders(c.Writer.Header(), 0, 0, 0, f.RetryAfter)
	answer(c, status, body)
}

const jsonType = "application/json"

func answer(c *gin.Context, status int, body any) {
	c.Header("Cache-Control", "no-store")
	c.Data(status, jsonType, httpx.JSON(body))
}

// send answers with a body that may be large.
func send(c *gin.Context, place *httpx.Place, body any) {
	c.Header("Cache-Control", "no-store")
	place.Send(c.Writer, http.StatusOK, jsonType, httpx.JSON(body))
}
