package registry

import (
	"context"
	"encoding/json"

	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
)

// Settings are the settings for the phones of the caller's account, as JSON; nil if there are none.
func (r *Registry) Settings(ctx context.Context, caller access.Caller) (json.RawMessage, error) {
	value, _, err := r.bucket.Get(ctx, streams.SettingsKey(caller.Account.ID))
	return value, err
}

// ChangeSettings stores what change makes of the settings, and gives that. It may call change more than once: two
// changes at a time follow each other. An error of change is returned as it is.
func (r *Registry) ChangeSettings(ctx context.Context, caller access.Caller, change func(json.RawMessage) (json.RawMessage, error)) (json.RawMessage, error) {
	return r.bucket.Change(ctx, streams.SettingsKey(caller.Account.ID), func(before []byte) ([]byte, error) { return change(before) })
}
