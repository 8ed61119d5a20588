package core

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// MaxWebhooks is the most webhooks of an account. Used up by one account, and only its own new webhooks
	// are refused.
	MaxWebhooks = 100
	// changeTries bounds how often a change is made anew because another one came first. Used up by an
	// account that changes its settings at once, and only those requests are refused.
	changeTries = 5
)

// Webhook is an address that phones of an account tell of an event.
type Webhook struct {
	ID      string           `json:"id"`              // the client's or one we gave; unique in the account
	Device  streams.DeviceID `json:"device,omitzero"` // the one that tells; zero: every one
	URL     string           `json:"url"`
	Event   string           `json:"event"`
	Created time.Time        `json:"created"`
}

var (
	errWebhooks = fault.New(fault.Conflict, "too_many_webhooks", "The account has 100 webhooks already")
	errChanging = &fault.Error{Kind: fault.Unavailable, Code: "changing", Text: "Others change this at the same time, try again", RetryAfter: retrySoon}
)

// Devices lists the phones of the caller's account that gave a name, by name.
func (c *Core) Devices(ctx context.Context, caller Caller) ([]streams.Device, error) {
	all, err := list[streams.Device](ctx, c, streams.DevicesBucket, streams.DeviceKeys(caller.Account.ID))
	for i, d := range all {
		if seen := c.presence.lastSeen(d.ID); seen.After(d.LastSeen) {
			all[i].LastSeen = seen.UTC()
		}
	}
	slices.SortFunc(all, func(a, b streams.Device) int { return cmp.Compare(a.Name, b.Name) })
	return all, c.refuse(err)
}

// RemoveDevice forgets a phone; one that is not known is none. It is known again when it calls again.
func (c *Core) RemoveDevice(ctx context.Context, caller Caller, device streams.DeviceID) error {
	err := c.remove(ctx, streams.DevicesBucket, streams.DeviceKey(caller.Account.ID, device))
	c.devices.forget(device)
	return c.refuse(err)
}

// Webhooks lists those of the caller's account, the oldest first.
func (c *Core) Webhooks(ctx context.Context, caller Caller) ([]Webhook, error) {
	all, err := list[Webhook](ctx, c, streams.RegistryBucket, streams.WebhookKeys(caller.Account.ID))
	slices.SortFunc(all, func(a, b Webhook) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all, c.refuse(err)
}

// PutWebhook stores a webhook, in the place of one with its id. It is a fault Conflict if there are MaxWebhooks others.
func (c *Core) PutWebhook(ctx context.Context, caller Caller, w Webhook) error {
	err := c.putWebhook(ctx, caller, w)
	return c.refuse(err)
}

func (c *Core) putWebhook(ctx context.Context, caller Caller, w Webhook) error {
	all, err := list[Webhook](ctx, c, streams.RegistryBucket, streams.WebhookKeys(caller.Account.ID))
	if err != nil {
		return err
	}
	w.Created = c.now().UTC()
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
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	bucket, err := c.bus.JS.KeyValue(ctx, streams.RegistryBucket)
	if err == nil {
		_, err = bucket.Put(ctx, streams.WebhookKey(caller.Account.ID, w.ID), value)
	}
	if err != nil {
		return errKept.With(err)
	}
	return nil
}

// RemoveWebhook forgets a webhook; one that is not known is none.
func (c *Core) RemoveWebhook(ctx context.Context, caller Caller, id string) error {
	return c.refuse(c.remove(ctx, streams.RegistryBucket, streams.WebhookKey(caller.Account.ID, id)))
}

// Settings are what the phones of the caller's account are told, as JSON; nil if nobody set any.
func (c *Core) Settings(ctx context.Context, caller Caller) (json.RawMessage, error) {
	value, _, err := c.settings(ctx, caller)
	return value, c.refuse(err)
}

func (c *Core) settings(ctx context.Context, caller Caller) (json.RawMessage, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	bucket, err := c.bus.JS.KeyValue(ctx, streams.RegistryBucket)
	if err != nil {
		return nil, 0, errKept.With(err)
	}
	entry, err := bucket.Get(ctx, streams.SettingsKey(caller.Account.ID))
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return nil, 0, nil
	case err != nil:
		return nil, 0, errKept.With(err)
	}
	return entry.Value(), entry.Revision(), nil
}

// ChangeSettings stores what change makes of the settings, and gives that. It may call change more than once: two
// changes at a time follow each other.
func (c *Core) ChangeSettings(ctx context.Context, caller Caller, change func(json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error) {
	for range changeTries {
		before, revision, err := c.settings(ctx, caller)
		if err != nil {
			return nil, c.refuse(err)
		}
		after, err := change(before)
		if err != nil {
			return nil, c.refuse(err)
		}
		stored, err := c.storeSettings(ctx, caller, after, revision)
		if err != nil || stored {
			return after, c.refuse(err)
		}
	}
	return nil, c.refuse(errChanging)
}

func (c *Core) storeSettings(ctx context.Context, caller Caller, value json.RawMessage, revision uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	bucket, err := c.bus.JS.KeyValue(ctx, streams.RegistryBucket)
	if err == nil {
		_, err = bucket.Update(ctx, streams.SettingsKey(caller.Account.ID), value, revision)
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return false, nil
	default:
		return false, errKept.With(err)
	}
}

// list reads the values of a bucket's keys. What cannot be read is left out.
func list[V any](ctx context.Context, c *Core, name, keys string) ([]V, error) {
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	bucket, err := c.bus.JS.KeyValue(ctx, name)
	if err != nil {
		return nil, errKept.With(err)
	}
	watcher, err := bucket.Watch(ctx, keys, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, errKept.With(err)
	}
	defer kv.EndWatch(watcher)
	var all []V
	for {
		select {
		case <-ctx.Done():
			return nil, errKept.With(ctx.Err())
		case entry, ok := <-watcher.Updates():
			if !ok {
				return nil, errKept
			}
			if entry == nil {
				return all, nil
			}
			var v V
			if json.Unmarshal(entry.Value(), &v) == nil {
				all = append(all, v)
			}
		}
	}
}

func (c *Core) remove(ctx context.Context, name, key string) error {
	ctx, cancel := context.WithTimeout(ctx, registryWithin)
	defer cancel()
	bucket, err := c.bus.JS.KeyValue(ctx, name)
	if err == nil {
		err = bucket.Delete(ctx, key)
	}
	if err != nil {
		return errKept.With(err)
	}
	return nil
}
