// Package queue is the queue dialect: POST queue, GET get_messages and POST status, as the app and the plugins
// that speak it know them.
package queue

import (
	"context"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
)

// Backend is what the dialect needs of the ingress. Its errors are faults, or else failures of our own.
type Backend interface {
	Admit(token string, use access.Use) (access.Caller, access.Rate, error)
	Enqueue(ctx context.Context, cmd messages.Enqueue) (messages.Accepted, error)
	Pull(ctx context.Context, cmd messages.Pull) ([]messages.Outgoing, error)
	Report(ctx context.Context, cmd messages.Report) (messages.Reported, error)
}

// Limiters bound the bodies that come in, posts apart from reports: a crowd of senders must not keep phones' reports out.
// Answers bounds the pages that go out.
type Limiters struct{ Senders, Phones, Answers *httpx.Limiter }

// Mount adds the dialect's routes, with the token in the path or as a bearer.
func Mount(r gin.IRouter, c Backend, l Limiters) {
	d := dialect{c, l}
	for _, prefix := range []string{"/api/:token", "/api"} {
		r.POST(prefix+"/queue", d.admitted(access.Posting, d.queue))
		r.GET(prefix+"/get_messages", d.admitted(access.Pulling, d.messages))
		r.POST(prefix+"/status", d.admitted(access.Reporting, d.status))
	}
}

type dialect struct {
	backend  Backend
	limiters Limiters
}

// admitted calls h for a caller that is admitted, and answers with the fault of h or of the backend.
func (d dialect) admitted(use access.Use, h func(*gin.Context, access.Caller) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		caller, rate, err := d.backend.Admit(token(c), use)
		httpx.RateHeaders(c.Writer.Header(), rate.Limit, rate.Remaining, rate.Reset, 0)
		if err == nil {
			httpx.Admitted(c.Request.Context(), caller.Account.Name)
			err = h(c, caller)
		}
		if err != nil {
			refuse(c, err)
		}
	}
}

func token(c *gin.Context) string {
	if token := c.Param("token"); token != "" {
		return token
	}
	scheme, token, _ := strings.Cut(c.GetHeader("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

func (d dialect) queue(c *gin.Context, caller access.Caller) error {
	if err := caller.MayEnqueue(); err != nil {
		return err
	}
	body, place, err := d.limiters.Senders.Enter(c.Writer, c.Request, maxBody, caller.Account.Name)
	if err != nil {
		return err
	}
	defer place.Leave()
	if err := place.Weigh(parsed(body)); err != nil {
		return err
	}
	in, err := parseQueue(body)
	if err != nil {
		return err
	}
	if err := place.Weigh(messages.Weight(in.drafts)); err != nil {
		return err
	}
	key, err := parseKey(c.Request.Header, body, in)
	if err != nil {
		return err
	}
	if len(in.drafts) == 0 {
		answer(c, http.StatusUnprocessableEntity, in.answer(nil))
		return nil
	}
	accepted, err := d.backend.Enqueue(c.Request.Context(), messages.Enqueue{Caller: caller, Drafts: in.drafts, Key: key})
	switch {
	case err != nil:
		return err
	case accepted.Replayed:
		c.Header("Idempotent-Replayed", "true")
	}
	if key == nil {
		accepted.Answer = in.answer(accepted.IDs)
	}
	answer(c, http.StatusOK, accepted.Answer)
	return nil
}

func (d dialect) messages(c *gin.Context, caller access.Caller) error {
	pull, err := parsePull(c.Request.URL.Query())
	if err != nil {
		return err
	}
	place := d.limiters.Answers.Answer(c.Writer, caller.Account.Name)
	defer place.Leave()
	caller.Room = place
	pull.Caller, pull.Stop = caller, httpx.Stopping(c.Request.Context())
	pulled, err := d.backend.Pull(c.Request.Context(), pull)
	if err != nil {
		return err
	}
	out := make([]outgoingOut, len(pulled))
	for i, m := range pulled {
		out[i] = outgoingOut{m.Phone.Reveal(), m.Text.Reveal(), m.ID}
	}
	c.Header("Cache-Control", "no-store")
	place.Send(c.Writer, http.StatusOK, jsonType, httpx.JSON(out))
	return nil
}

func (d dialect) status(c *gin.Context, caller access.Caller) error {
	body, place, err := d.limiters.Phones.Enter(c.Writer, c.Request, maxBody, caller.Account.Name)
	if err != nil {
		return err
	}
	defer place.Leave()
	if err := place.Weigh(parsed(body)); err != nil {
		return err
	}
	in, err := parseStatus(body)
	if err != nil {
		return err
	}
	var reported messages.Reported
	if len(in.items) > 0 {
		reported, err = d.backend.Report(c.Request.Context(), messages.Report{Caller: caller, Device: in.device, Items: in.items})
		if err != nil {
			return err
		}
	}
	answer(c, http.StatusOK, httpx.JSON(in.answer(reported)))
	return nil
}

// refuse answers with a fault. The reason of a failure of our own goes to the
// access log only.
func refuse(c *gin.Context, err error) {
	f := fault.As(err)
	status, body := refusal(f)
	if status >= http.StatusInternalServerError {
		_ = c.Error(err)
	}
	if status == http.StatusUnauthorized {
		c.Header("WWW-Authenticate", "Bearer")
	}
	httpx.RateHeaders(c.Writer.Header(), 0, 0, 0, f.RetryAfter)
	answer(c, status, httpx.JSON(body))
}

const jsonType = "application/json; charset=utf-8"

func answer(c *gin.Context, status int, body []byte) {
	c.Data(status, jsonType, body)
}
