package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
)

// MaxWebhooks is the most webhooks of an account.
//
// Limit: an account has at most 100 webhooks. Beyond it: 409 for a new one.
// Used up by: one account. Hurts: only that account. Test: TestWebhooks.
const MaxWebhooks = 100

// Webhook is an address that phones of an account call when an event happens.
type Webhook struct {
	ID      string           `json:"id"`              // the client's or one we gave; unique in the account
	Device  streams.DeviceID `json:"device,omitzero"` // the phone that calls it; zero: every phone
	URL     string           `json:"url"`
	Event   string           `json:"event"`
	Created time.Time        `json:"created"`
}

var errWebhooks = fault.New(fault.Conflict, "too_many_webhooks", "The account has 100 webhooks already")

// Webhooks lists the webhooks of the caller's account, the oldest first.
func (r *Registry) Webhooks(ctx context.Context, caller access.Caller) ([]Webhook, error) {
	all, err := kv.List[Webhook](ctx, r.bucket, streams.WebhookKeys(caller.Account.ID))
	slices.SortFunc(all, func(a, b Webhook) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all, err
}

// PutWebhook stores a webhook. It replaces one with the same id. It is a fault Conflict if there are MaxWebhooks others.
func (r *Registry) PutWebhook(ctx context.Context, caller access.Caller, w Webhook) error {
	all, err := kv.List[Webhook](ctx, r.bucket, streams.WebhookKeys(caller.Account.ID))
	if err != nil {
		return err
	}
	w.Created = r.now().UTC()
	i := slices.IndexFunc(all, func(other Webhook) bool { return other.ID == w.ID })
	switch {
	case i >= 0:
		w.Created = all[i].Created
	case len(all) >= MaxWebhooks:
		return errWebhooks
	}
	value, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return r.bucket.Put(ctx, streams.WebhookKey(caller.Account.ID, w.ID), value)
}

// RemoveWebhook removes a webhook. It is no fault if there is none.
func (r *Registry) RemoveWebhook(ctx context.Context, caller access.Caller, id string) error {
	return r.bucket.Delete(ctx, streams.WebhookKey(caller.Account.ID, id))
}
