// Package nodes is the SMS Nodes dialect: POST send-sms with a phone's login in the body, and GET health.
package nodes

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// lookFor is how long an answer waits for phones to take its messages.
	//
	// Limit: an answer waits at most 300 ms for phones to take its messages. Beyond it: sentImmediately is false.
	// Used up by: an account whose phones are busy or offline. Hurts: that answer alone: it comes later. Test:
	// TestSend_SentImmediately.
	lookFor   = 300 * time.Millisecond
	lookEvery = 20 * time.Millisecond
)

// Backend is what the dialect needs of the ingress. Its errors are faults, or else failures of our own.
type Backend interface {
	AdmitLogin(ctx context.Context, said access.Credentials, use access.Use) (access.Caller, access.Rate, error)
	Enqueue(ctx context.Context, cmd messages.Enqueue) (messages.Accepted, error)
	Sequence(ctx context.Context, caller access.Caller, id streams.MessageID) (uint64, error)
	Group(ctx context.Context, caller access.Caller, ref string) (messages.Group, error)
	DeviceOnline(ctx context.Context, caller access.Caller) bool
	Online() int
}

// Options are what the dialect shares with others, and what it tells about the server.
type Options struct {
	Logins  *httpx.Limiter // bounds bodies while it is not known whose they are
	Senders *httpx.Limiter // bounds the posts of all dialects

	Proxies    httpx.Proxies                  // whose word is taken for where a request came from
	Encryption string                         // of what is stored, in words
	Ready      func(ctx context.Context) bool // whether senders and phones can be served
	Now        func() time.Time
}

// Mount adds the dialect's routes.
func Mount(r gin.IRouter, c Backend, o Options) {
	d := dialect{c, o}
	r.POST("/api/send-sms", d.answered(d.send))
	r.GET("/api/health", d.health)
}

type dialect struct {
	backend Backend
	Options
}

// answered calls h, and answers with the fault that h returns.
func (d dialect) answered(h func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := h(c); err != nil {
			refuse(c, err)
		}
	}
}

func (d dialect) send(c *gin.Context) error {
	in, caller, err := d.admit(c)
	if err != nil {
		return err
	}
	httpx.Admitted(c.Request.Context(), caller.Account.Name)
	if err := caller.MayEnqueue(); err != nil {
		return err
	}
	drafts, err := in.drafts(caller.Device)
	if err != nil {
		return err
	}
	// The body has been read. From here on it counts among the bodies of its account.
	_, place, err := d.Senders.Enter(c.Writer, c.Request, maxBody, caller.Account.Name)
	if err == nil {
		defer place.Leave()
		err = place.Weigh(messages.Weight(drafts))
	}
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	accepted, err := d.backend.Enqueue(ctx, messages.Enqueue{Caller: caller, Drafts: drafts, Group: len(drafts) > 1})
	if err != nil {
		return err
	}
	out := sentOut{Message: "SMS queued successfully"}
	if accepted.First == 0 {
		accepted.First, err = d.backend.Sequence(ctx, caller, accepted.IDs[0])
	}
	if err == nil { // if not, the message is stored all the same, and its number is 0
		out.MessageID = streams.PlaceNumber(accepted.Shard, accepted.First)
	}
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	out.DeviceOnline = d.backend.DeviceOnline(ctx, caller)
	out.SentImmediately = out.DeviceOnline && d.taken(ctx, caller, accepted.IDs)
	answer(c, http.StatusOK, out)
	return nil
}

// admit reads a request and finds its caller. After that the request has its body again.
func (d dialect) admit(c *gin.Context) (sendRequest, access.Caller, error) {
	from := d.Proxies.From(c.Request)
	body, place, err := d.Logins.Enter(c.Writer, c.Request, maxBody, from.String())
	if err == nil {
		defer place.Leave()
		err = place.Weigh(int64(len(body))) // what it says once more
	}
	if err != nil {
		return sendRequest{}, access.Caller{}, err
	}
	c.Request.Body = io.NopCloser(bytes.NewReader(body))
	in, err := parse(body)
	if err != nil {
		return in, access.Caller{}, err
	}
	said := access.Credentials{Name: in.DeviceUsername, Password: in.Password, From: from}
	caller, rate, err := d.backend.AdmitLogin(c.Request.Context(), said, access.Posting)
	httpx.RateHeaders(c.Writer.Header(), rate.Limit, rate.Remaining, rate.Reset, 0)
	return in, caller, err
}

// taken says whether phones have taken a request's messages, as soon as that is known.
func (d dialect) taken(ctx context.Context, caller access.Caller, ids []streams.MessageID) bool {
	for {
		group, err := d.backend.Group(ctx, caller, ids[0].String())
		if err != nil {
			return false
		}
		if !isWaiting(group) {
			return isTaken(group, len(ids))
		}
		if clock.Sleep(ctx, lookEvery) != nil {
			return false
		}
	}
}

func (d dialect) health(c *gin.Context) {
	out := healthOut{
		Status: "healthy", Timestamp: formatTime(d.Now()), SSL: d.Proxies.Scheme(c.Request) == "https", Encryption: d.Encryption,
		ConnectedDevices: d.backend.Online(),
	}
	status := http.StatusOK
	if !d.Ready(c.Request.Context()) {
		out.Status, status = "unhealthy", http.StatusServiceUnavailable
	}
	c.Header("Cache-Control", "no-store")
	answer(c, status, out)
}

// refuse answers with a fault. The reason of a failure of our own goes to the access log only.
func refuse(c *gin.Context, err error) {
	f := fault.As(err)
	status, body := refusal(f)
	if status >= http.StatusInternalServerError {
		_ = c.Error(err)
	}
	if f.Kind != fault.UnknownOutcome { // a repeat may send the message twice, so no client is told to repeat
		httpx.RateHeaders(c.Writer.Header(), 0, 0, 0, f.RetryAfter)
	}
	answer(c, status, body)
}

func answer(c *gin.Context, status int, body any) {
	c.Data(status, "application/json; charset=utf-8", httpx.JSON(body))
}
