// Package smsgate is the 3rdparty dialect: the API by which programs send SMS through SMSGate's server, as its client
// libraries and those who documented it know it.
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
	"github.com/trunkline-sms/trunkline/services/ingress/core"
	"github.com/trunkline-sms/trunkline/streams"
)

// Core is what the dialect needs of the core.
type Core interface {
	access
	messages
	registry
}

type access interface {
	AdmitLogin(ctx context.Context, said core.Credentials, use core.Use) (core.Caller, core.Rate, error)
	AdmitSession(ctx context.Context, token secret.String, use core.Use) (core.Session, core.Rate, error)
	BeginSession(ctx context.Context, caller core.Caller, ttl time.Duration, scopes []string) (core.Tokens, error)
	RenewSession(ctx context.Context, s core.Session, token secret.String) (core.Tokens, error)
	EndSession(ctx context.Context, caller core.Caller, id string) error
}

type messages interface {
	Enqueue(ctx context.Context, cmd core.Enqueue) (core.Accepted, error)
	Group(ctx context.Context, caller core.Caller, ref string) (core.Group, error)
	Groups(ctx context.Context, q core.Browse) ([]core.Group, int, error)
	Cancel(ctx context.Context, caller core.Caller, ref string) (core.Group, error)
}

type registry interface {
	Devices(ctx context.Context, caller core.Caller) ([]streams.Device, error)
	RemoveDevice(ctx context.Context, caller core.Caller, device streams.DeviceID) error
	Webhooks(ctx context.Context, caller core.Caller) ([]core.Webhook, error)
	PutWebhook(ctx context.Context, caller core.Caller, w core.Webhook) error
	RemoveWebhook(ctx context.Context, caller core.Caller, id string) error
	Settings(ctx context.Context, caller core.Caller) (json.RawMessage, error)
	ChangeSettings(ctx context.Context, caller core.Caller, change func(json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error)
}

// Options are what the dialect needs besides.
type Options struct {
	Senders *httpx.Limiter    // what bodies come in by
	Answers *httpx.Limiter    // what lists and messages go out by
	Proxies httpx.Proxies     // whose word is taken for where a request came from
	Health  func(gin.IRoutes) // adds the health routes, as httpx.Health.Mount does; nil: there are none
	Now     func() time.Time  // nil: time.Now
}

// form is how an address of the API answers: both say the same, but for this.
type form struct {
	prefix   string
	accepted int  // the status of a message that was accepted
	location bool // with the address of the message
	nulls    bool // a recipient without an error says so
	skip     bool // lists may be told to skip, not only an offset
	limit    int  // of a list, unless it is given
}

var forms = []form{
	{prefix: "/3rdparty/v1", accepted: http.StatusAccepted, location: true, limit: 50},
	{prefix: "/api/3rdparty/v1", accepted: http.StatusOK, nulls: true, skip: true, limit: 20},
}

// Mount adds the dialect's routes, under both of its addresses.
func Mount(r gin.IRouter, c Core, o Options) {
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, f := range forms {
		dialect{core: c, o: o, form: f}.mount(r.Group(f.prefix))
	}
}

type dialect struct {
	core Core
	o    Options
	form form
}

type handler func(*gin.Context, core.Session) error

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

// spellings are the paths of a route: some clients say message and device.
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

// admitted calls h for a caller who may, and answers what h or the core refuses.
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

// admit tells who calls, and what for. A phone's own login is for another dialect.
func (d dialect) admit(r *http.Request) (s core.Session, rate core.Rate, err error) {
	use := core.Posting
	if r.Method == http.MethodGet {
		use = core.Pulling
	}
	if name, password, ok := r.BasicAuth(); ok {
		s.Scopes = []string{everything}
		s.Caller, rate, err = d.core.AdmitLogin(r.Context(), core.Credentials{Name: name, Password: secret.String(password), From: d.o.Proxies.From(r)}, use)
	} else if token := bearer(r); token != "" {
		s, rate, err = d.core.AdmitSession(r.Context(), token, use)
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

// may says whether scopes are enough. Only a token that renews is for renewing.
func may(scopes []string, scope string) bool {
	return slices.Contains(scopes, scope) || scope != renewing && slices.Contains(scopes, everything)
}

// posted reads the body and calls f with it. What f makes of it beyond that is for f to weigh.
func (d dialect) posted(c *gin.Context, s core.Session, limit int64, f func(body []byte, place *httpx.Place) error) error {
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

func (d dialect) send(c *gin.Context, s core.Session) error {
	if err := s.MayEnqueue(); err != nil {
		return err
	}
	return d.posted(c, s, maxBody, func(body []byte, place *httpx.Place) error {
		in, err := parseSend(body, c.Request.URL.Query(), s.Account.Region, d.o.Now())
		if err != nil {
			return err
		}
		if in.picky() {
			devices, err := d.core.Devices(c.Request.Context(), s.Caller)
			if err == nil {
				err = in.pick(devices)
			}
			if err != nil {
				return err
			}
		}
		if err := place.Weigh(core.Weight(in.Drafts)); err != nil {
			return err
		}
		in.Caller = s.Caller
		accepted, err := d.core.Enqueue(c.Request.Context(), in.Enqueue)
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

func (d dialect) list(c *gin.Context, s core.Session) error {
	q, nothing, err := d.form.parseList(c.Request.URL.Query(), d.o.Now())
	if err != nil {
		return err
	}
	place := d.room(c, &s)
	defer place.Leave()
	q.Caller = s.Caller
	var groups []core.Group
	total := 0
	if !nothing {
		if groups, total, err = d.core.Groups(c.Request.Context(), q); err != nil {
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

// room is for what is answered.
func (d dialect) room(c *gin.Context, s *core.Session) *httpx.Place {
	place := d.o.Answers.Answer(c.Writer, s.Account.Name)
	s.Room = place
	return place
}

func (d dialect) show(c *gin.Context, s core.Session) error {
	place := d.room(c, &s)
	defer place.Leave()
	g, err := d.core.Group(c.Request.Context(), s.Caller, c.Param("id"))
	if err == nil {
		send(c, place, d.form.message(g, true))
	}
	return err
}

func (d dialect) cancel(c *gin.Context, s core.Session) error {
	place := d.room(c, &s)
	defer place.Leave()
	g, err := d.core.Cancel(c.Request.Context(), s.Caller, c.Param("id"))
	if err != nil {
		return err
	}
	out := d.form.message(g, true)
	out.State = cancelling
	send(c, place, out)
	return nil
}

// refreshInbox is told to ask phones what they have received. It is accepted whatever phones there are; those that speak
// the dialects of this server cannot be asked.
func (d dialect) refreshInbox(c *gin.Context, s core.Session) error {
	return d.posted(c, s, maxSmall, func(body []byte, _ *httpx.Place) error {
		if err := checkRefresh(body); err != nil {
			return err
		}
		c.Data(http.StatusAccepted, "text/plain; charset=utf-8", []byte("Accepted"))
		return nil
	})
}

// Unrouted answers in the dialect's form where a path below its addresses is no route, and otherwise as elsewhere does.
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

// absent answers for what this server does not do.
func absent(why string) handler {
	return func(c *gin.Context, _ core.Session) error {
		answer(c, http.StatusNotImplemented, faultOut{why})
		return nil
	}
}

func deprecated(h handler) handler {
	return func(c *gin.Context, s core.Session) error {
		c.Header("Deprecation", "true")
		return h(c, s)
	}
}

// refuse answers a fault, and leaves the reason of what is our own failure to the access log.
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

// send is answer for what may be large.
func send(c *gin.Context, place *httpx.Place, body any) {
	c.Header("Cache-Control", "no-store")
	place.Send(c.Writer, http.StatusOK, jsonType, httpx.JSON(body))
}
