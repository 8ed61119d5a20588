package ingress

import (
	"context"
	"encoding/json"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/services/ingress/fleet"
	"github.com/trunkline-sms/trunkline/services/ingress/messages"
	"github.com/trunkline-sms/trunkline/services/ingress/registry"
	"github.com/trunkline-sms/trunkline/streams"
)

// backend is what the dialects call. It passes every call on, and counts those that are rejected. Nothing else counts
// them, so the packages behind it may call each other without being counted.
type backend struct {
	access   *access.Access
	fleet    *fleet.Fleet
	messages *messages.Messages
	registry *registry.Registry
	rejected *prometheus.CounterVec // by the fault's code
}

func newBackend(a *access.Access, f *fleet.Fleet, m *messages.Messages, r *registry.Registry, to prometheus.Registerer) *backend {
	return &backend{a, f, m, r, promauto.With(to).NewCounterVec(prometheus.CounterOpts{
		Namespace: "trunkline", Subsystem: "ingress", Name: "refused_requests_total", Help: "Requests rejected, by the reason's code.",
	}, []string{"reason"})}
}

// count counts an error, if there is one. It is called when a method has returned.
func (b *backend) count(err *error) {
	if *err != nil {
		b.rejected.WithLabelValues(fault.As(*err).Code).Inc()
	}
}

// Admit is that of access.Access.
func (b *backend) Admit(token string, use access.Use) (_ access.Caller, _ access.Rate, err error) {
	defer b.count(&err)
	return b.access.Admit(token, use)
}

// AdmitLogin is that of access.Access.
func (b *backend) AdmitLogin(ctx context.Context, credentials access.Credentials, use access.Use) (_ access.Caller, _ access.Rate, err error) {
	defer b.count(&err)
	return b.access.AdmitLogin(ctx, credentials, use)
}

// AdmitSession is that of access.Access.
func (b *backend) AdmitSession(ctx context.Context, token secret.String, use access.Use) (_ access.Session, _ access.Rate, err error) {
	defer b.count(&err)
	return b.access.AdmitSession(ctx, token, use)
}

// BeginSession is that of access.Access.
func (b *backend) BeginSession(ctx context.Context, caller access.Caller, ttl time.Duration, scopes []string) (_ access.Tokens, err error) {
	defer b.count(&err)
	return b.access.BeginSession(ctx, caller, ttl, scopes)
}

// RenewSession is that of access.Access.
func (b *backend) RenewSession(ctx context.Context, s access.Session, token secret.String) (_ access.Tokens, err error) {
	defer b.count(&err)
	return b.access.RenewSession(ctx, s, token)
}

// EndSession is that of access.Access.
func (b *backend) EndSession(ctx context.Context, caller access.Caller, id string) (err error) {
	defer b.count(&err)
	return b.access.EndSession(ctx, caller, id)
}

// Devices is that of fleet.Fleet.
func (b *backend) Devices(ctx context.Context, caller access.Caller) (_ []streams.Device, err error) {
	defer b.count(&err)
	return b.fleet.Devices(ctx, caller)
}

// RemoveDevice is that of fleet.Fleet.
func (b *backend) RemoveDevice(ctx context.Context, caller access.Caller, device streams.DeviceID) (err error) {
	defer b.count(&err)
	return b.fleet.RemoveDevice(ctx, caller, device)
}

// DeviceOnline is that of fleet.Fleet.
func (b *backend) DeviceOnline(ctx context.Context, caller access.Caller) bool {
	return b.fleet.DeviceOnline(ctx, caller)
}

// Online is that of fleet.Fleet.
func (b *backend) Online() int { return b.fleet.Online() }

// Enqueue is that of messages.Messages.
func (b *backend) Enqueue(ctx context.Context, cmd messages.Enqueue) (_ messages.Accepted, err error) {
	defer b.count(&err)
	return b.messages.Enqueue(ctx, cmd)
}

// Pull is that of messages.Messages.
func (b *backend) Pull(ctx context.Context, cmd messages.Pull) (_ []messages.Outgoing, err error) {
	defer b.count(&err)
	return b.messages.Pull(ctx, cmd)
}

// Report is that of messages.Messages.
func (b *backend) Report(ctx context.Context, cmd messages.Report) (_ messages.Reported, err error) {
	defer b.count(&err)
	return b.messages.Report(ctx, cmd)
}

// Group is that of messages.Messages.
func (b *backend) Group(ctx context.Context, caller access.Caller, ref string) (_ messages.Group, err error) {
	defer b.count(&err)
	return b.messages.Group(ctx, caller, ref)
}

// Groups is that of messages.Messages.
func (b *backend) Groups(ctx context.Context, q messages.Browse) (_ []messages.Group, _ int, err error) {
	defer b.count(&err)
	return b.messages.Groups(ctx, q)
}

// Sequence is that of messages.Messages.
func (b *backend) Sequence(ctx context.Context, caller access.Caller, id streams.MessageID) (_ uint64, err error) {
	defer b.count(&err)
	return b.messages.Sequence(ctx, caller, id)
}

// Cancel is that of messages.Messages.
func (b *backend) Cancel(ctx context.Context, caller access.Caller, ref string) (_ messages.Group, err error) {
	defer b.count(&err)
	return b.messages.Cancel(ctx, caller, ref)
}

// Webhooks is that of registry.Registry.
func (b *backend) Webhooks(ctx context.Context, caller access.Caller) (_ []registry.Webhook, err error) {
	defer b.count(&err)
	return b.registry.Webhooks(ctx, caller)
}

// PutWebhook is that of registry.Registry.
func (b *backend) PutWebhook(ctx context.Context, caller access.Caller, w registry.Webhook) (err error) {
	defer b.count(&err)
	return b.registry.PutWebhook(ctx, caller, w)
}

// RemoveWebhook is that of registry.Registry.
func (b *backend) RemoveWebhook(ctx context.Context, caller access.Caller, id string) (err error) {
	defer b.count(&err)
	return b.registry.RemoveWebhook(ctx, caller, id)
}

// Settings is that of registry.Registry.
func (b *backend) Settings(ctx context.Context, caller access.Caller) (_ json.RawMessage, err error) {
	defer b.count(&err)
	return b.registry.Settings(ctx, caller)
}

// ChangeSettings is that of registry.Registry.
func (b *backend) ChangeSettings(ctx context.Context, caller access.Caller, change func(json.RawMessage) (json.RawMessage, error)) (_ json.RawMessage, err error) {
	defer b.count(&err)
	return b.registry.ChangeSettings(ctx, caller, change)
}
