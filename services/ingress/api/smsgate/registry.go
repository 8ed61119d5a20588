package smsgate

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/services/ingress/registry"
	"github.com/trunkline-sms/trunkline/streams"
)

// The routes about what an account has besides messages, and what they translate.

const (
	// Limit: the address of a webhook has at most 256 characters. Beyond it: 400.
	// Used up by: one request. Hurts: that request alone. Test: TestParseWebhook.
	maxURL   = 256 // characters of a webhook's
	idLength = 21  // characters of a webhook's id, if it is ours
)

func (d dialect) beginSession(c *gin.Context, s access.Session) error {
	return d.posted(c, s, maxSmall, func(body []byte, _ *httpx.Place) error {
		ttl, scopes, err := parseSession(body)
		if err != nil {
			return err
		}
		for _, scope := range scopes { // a session cannot give scopes that it does not have
			if !may(s.Scopes, scope) {
				return errScope(scope)
			}
		}
		tokens, err := d.backend.BeginSession(c.Request.Context(), s.Caller, ttl, scopes)
		if err == nil {
			answer(c, http.StatusCreated, tokensAnswer(tokens))
		}
		return err
	})
}

func (d dialect) renewSession(c *gin.Context, s access.Session) error {
	tokens, err := d.backend.RenewSession(c.Request.Context(), s, bearer(c.Request))
	if err == nil {
		answer(c, http.StatusCreated, tokensAnswer(tokens))
	}
	return err
}

func (d dialect) endSession(c *gin.Context, s access.Session) error {
	return done(c, d.backend.EndSession(c.Request.Context(), s.Caller, c.Param("jti")))
}

func (d dialect) devices(c *gin.Context, s access.Session) error {
	all, err := d.backend.Devices(c.Request.Context(), s.Caller)
	if err != nil {
		return err
	}
	out := make([]deviceOut, len(all))
	for i, one := range all {
		out[i] = deviceAnswer(one)
	}
	answer(c, http.StatusOK, out)
	return nil
}

func (d dialect) removeDevice(c *gin.Context, s access.Session) error {
	var id streams.DeviceID
	if id.UnmarshalText([]byte(c.Param("id"))) != nil {
		return done(c, nil) // no device has it
	}
	return done(c, d.backend.RemoveDevice(c.Request.Context(), s.Caller, id))
}

func (d dialect) webhooks(c *gin.Context, s access.Session) error {
	all, err := d.backend.Webhooks(c.Request.Context(), s.Caller)
	if err != nil {
		return err
	}
	out := make([]webhookOut, len(all))
	for i, one := range all {
		out[i] = webhookAnswer(one)
	}
	answer(c, http.StatusOK, out)
	return nil
}

func (d dialect) putWebhook(c *gin.Context, s access.Session) error {
	return d.posted(c, s, maxSmall, func(body []byte, _ *httpx.Place) error {
		w, device, err := parseWebhook(body)
		if err != nil {
			return err
		}
		if device != "" {
			devices, err := d.backend.Devices(c.Request.Context(), s.Caller)
			if err != nil {
				return err
			}
			if w.Device, err = ofDevice(devices, device); err != nil {
				return err
			}
		}
		err = d.backend.PutWebhook(c.Request.Context(), s.Caller, w)
		if err == nil {
			answer(c, http.StatusCreated, webhookAnswer(w))
		}
		return err
	})
}

func (d dialect) removeWebhook(c *gin.Context, s access.Session) error {
	return done(c, d.backend.RemoveWebhook(c.Request.Context(), s.Caller, c.Param("id")))
}

func (d dialect) settings(c *gin.Context, s access.Session) error {
	stored, err := d.backend.Settings(c.Request.Context(), s.Caller)
	if stored == nil {
		stored = json.RawMessage("{}")
	}
	if err == nil {
		answer(c, http.StatusOK, stored)
	}
	return err
}

// changeSettings stores the settings that how makes of the stored ones and of those in the body.
func (d dialect) changeSettings(how func(before, given settings) settings) handler {
	return func(c *gin.Context, s access.Session) error {
		return d.posted(c, s, maxSmall, func(body []byte, _ *httpx.Place) error {
			given, err := parseSettings(body)
			if err != nil {
				return err
			}
			stored, err := d.backend.ChangeSettings(c.Request.Context(), s.Caller, func(before json.RawMessage) (json.RawMessage, error) {
				stand, err := readSettings(before)
				if err != nil {
					return nil, err
				}
				return how(stand, given).write(), nil
			})
			if err == nil {
				answer(c, http.StatusOK, stored)
			}
			return err
		})
	}
}

// done answers that something is gone, whether or not it was there before.
func done(c *gin.Context, err error) error {
	if err == nil {
		c.Status(http.StatusNoContent)
	}
	return err
}

// parseSession reads the body of POST auth/token. The backend checks the bounds.
func parseSession(body []byte) (ttl time.Duration, scopes []string, err error) {
	var in sessionIn
	if err := decode(body, &in); err != nil {
		return 0, nil, err
	}
	switch {
	case len(in.Scopes) == 0:
		return 0, nil, invalid("scopes must name one scope or more")
	case slices.Contains(in.Scopes, ""):
		return 0, nil, invalid("scopes must not be empty")
	}
	return time.Duration(min(in.TTL, uint64(access.MaxAccess/time.Second))) * time.Second, in.Scopes, nil
}

func tokensAnswer(t access.Tokens) tokensOut {
	return tokensOut{
		ID: t.ID, TokenType: "Bearer", AccessToken: t.Access.Reveal(), RefreshToken: t.Renew.Reveal(), ExpiresAt: stamp(t.Expires),
	}
}

// deviceAnswer gives a device. Only its last-seen time ever changes.
func deviceAnswer(d streams.Device) deviceOut {
	created, seen := d.Created, d.LastSeen
	if created.IsZero() { // an earlier version stored it without the time
		created = seen
	}
	if seen.Before(created) {
		seen = created
	}
	return deviceOut{ID: d.ID.String(), Name: d.Name, CreatedAt: stamp(created), UpdatedAt: stamp(seen), LastSeen: stamp(seen)}
}

// hooks are the events that a phone can tell of.
var hooks = []string{
	"sms:received", "sms:data-received", "sms:sent", "sms:delivered", "sms:failed", "sms:cancelled", "system:ping",
	"mms:received", "mms:downloaded", "app:started",
	"sms:batch:received", "sms:batch:data-received", "mms:batch:received", "mms:batch:downloaded",
}

// parseWebhook reads the body of POST webhooks. The device is still to be looked for.
func parseWebhook(body []byte) (w registry.Webhook, device string, err error) {
	var in webhookIn
	if err := decode(body, &in); err != nil {
		return w, "", err
	}
	w = registry.Webhook{ID: value(in.ID), URL: in.URL, Event: in.Event}
	switch {
	case w.ID != "" && !isID(w.ID):
		return w, "", invalid("id must have at most 36 characters, without |, /, ?, # and control characters")
	case !isHook(w.URL):
		return w, "", invalid("url must be an https:// address of at most 256 characters")
	case !slices.Contains(hooks, w.Event):
		return w, "", invalid("event must be one of " + strings.Join(hooks, ", "))
	case w.ID == "":
		w.ID = rand.Text()[:idLength]
	}
	if device = value(in.DeviceID); device == "" {
		device = value(in.Device)
	}
	return w, device, nil
}

func isHook(address string) bool {
	const scheme = "https://"
	if utf8.RuneCountInString(address) > maxURL || len(address) < len(scheme) || !strings.EqualFold(address[:len(scheme)], scheme) {
		return false
	}
	u, err := url.Parse(address)
	return err == nil && u.Hostname() != ""
}

// ofDevice finds a device of the account by its id.
func ofDevice(devices []streams.Device, id string) (streams.DeviceID, error) {
	for _, d := range devices {
		if d.ID.String() == id {
			return d.ID, nil
		}
	}
	return 0, invalid("deviceId must be a device of the account")
}

func webhookAnswer(w registry.Webhook) webhookOut {
	out := webhookOut{ID: w.ID, URL: w.URL, Event: w.Event}
	if w.Device != 0 {
		id := w.Device.String()
		out.DeviceID = &id
	}
	return out
}

// checkRefresh says what is wrong with the body of POST inbox/refresh.
func checkRefresh(body []byte) error {
	var in refreshIn
	if err := decode(body, &in); err != nil {
		return err
	}
	if in.Since == nil || in.Until == nil {
		return invalid("since and until are required")
	}
	since, err := time.Parse(time.RFC3339, *in.Since)
	if err != nil {
		return invalid("since must be a time as in RFC 3339")
	}
	until, err := time.Parse(time.RFC3339, *in.Until)
	switch {
	case err != nil:
		return invalid("until must be a time as in RFC 3339")
	case until.Before(since):
		return invalid("until must not be before since")
	case in.DeviceID != nil && len(*in.DeviceID) > idLength:
		return invalid("deviceId must have at most 21 characters")
	case slices.ContainsFunc(in.MessageTypes, func(kind string) bool { return kind != "SMS" && kind != "MMS" }):
		return invalid("messageTypes must be SMS or MMS")
	case in.Delivery != nil && !slices.Contains([]string{"Disabled", "Individual", "Batch"}, *in.Delivery):
		return invalid("webhookDelivery must be Disabled, Individual or Batch")
	}
	return nil
}
