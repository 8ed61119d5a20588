package core

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// FuzzAccount: whatever the accounts bucket holds under an account's key, others are admitted as before, and its own
// token as the record says or not at all; a record that is read is written as what reads the same.
func FuzzAccount(f *testing.F) {
	c := newCore(f)
	bucket := accountsBucket(f, c)
	other := streams.Account{ID: streams.AccountIDOf("other"), Name: "other", Tokens: []streams.Token{{Hash: streams.HashToken("other")}}}
	put(f, c, streams.AccountKey(other.ID), other)
	a := *account
	a.Tokens = []streams.Token{{Hash: streams.HashToken("one")}}
	for _, change := range []func(*streams.Account){
		func(*streams.Account) {},
		func(a *streams.Account) { a.Suspended = true },
		func(a *streams.Account) { a.ID = other.ID },
		func(a *streams.Account) {
			a.Plan = streams.Plan{Limit: -1, Rate: -1, Lease: -1, Attempts: -1, AfterLapse: "none"}
		},
		func(a *streams.Account) { a.Plan.Rate = 1<<63 - 1 },
		func(a *streams.Account) { a.Plan.Rate = 1 },
		func(a *streams.Account) { a.Tokens[0].Expires = time.Unix(1, 0) },
		func(a *streams.Account) { a.Subscription.Until = time.Unix(1, 0) },
	} {
		changed := a
		changed.Tokens = append([]streams.Token(nil), a.Tokens...)
		change(&changed)
		data, err := json.Marshal(changed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, seed := range []string{"", "null", "[]", `{"id":"x"}`, `{"tokens":null}`, `{"plan":{"rate":1e400}}`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		revision, err := bucket.Put(t.Context(), streams.AccountKey(a.ID), data)
		if err == nil {
			_, err = c.Seen(t.Context(), request.Seen{Revision: revision})
		}
		if err != nil {
			t.Fatal(err)
		}
		if caller, _, err := c.Admit("other", Posting); err != nil || caller.Account.ID != other.ID {
			t.Fatalf("%q: another account gets %v", data, err)
		}
		caller, rate, err := c.Admit("one", Posting)
		switch {
		case rate.Limit < 0 || rate.Remaining < 0 || rate.Remaining > rate.Limit || rate.Reset < 0:
			t.Fatalf("%q: got rate %+v", data, rate)
		case err == nil && caller.Account.ID != a.ID:
			t.Fatalf("%q: the token is of account %s", data, caller.Account.ID)
		case err != nil && !fault.Is(err, fault.Unauthenticated) && !fault.Is(err, fault.Forbidden) && !fault.Is(err, fault.RateLimited):
			t.Fatalf("%q: got %v", data, err)
		}
		read, err := readAccount(streams.AccountKey(a.ID), data)
		if err != nil {
			return
		}
		written, err := json.Marshal(read)
		if err != nil {
			t.Fatalf("%q was read and cannot be written: %v", data, err)
		}
		again, err := readAccount(streams.AccountKey(a.ID), written)
		if err != nil || cmp.Diff(read, again) != "" {
			t.Fatalf("%q reads otherwise when written again: %v\n%s", data, err, cmp.Diff(read, again))
		}
	})
}

// FuzzDevice: whatever the devices bucket holds under a phone's key, the phone is served, and is known afterwards.
func FuzzDevice(f *testing.F) {
	c := newCore(f)
	bucket, err := c.bus.JS.KeyValue(f.Context(), streams.DevicesBucket)
	if err != nil {
		f.Fatal(err)
	}
	id := streams.DeviceIDOf(account.ID, "Pixel")
	for _, seed := range []string{"", "null", "{}", `{"id":"x"}`, `{"last_seen":"9999-12-31T23:59:59Z"}`, `{"last_seen":"0001-01-01T00:00:00Z","name":5}`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := bucket.Put(t.Context(), streams.DeviceKey(account.ID, id), data); err != nil {
			t.Fatal(err)
		}
		devices := newDevices(c.bus, zap.NewNop(), time.Now, c.presence) // which knows none
		for range 2 {
			if got, err := devices.contact(t.Context(), account.ID, "Pixel"); err != nil || got != id {
				t.Fatalf("%q: got %s, %v", data, got, err)
			}
		}
		entry, err := bucket.Get(t.Context(), streams.DeviceKey(account.ID, id))
		if err != nil {
			t.Fatal(err)
		}
		var stored streams.Device
		if err := json.Unmarshal(entry.Value(), &stored); err != nil || stored.LastSeen.Before(time.Now().Add(-seenEvery)) {
			t.Fatalf("%q: got %q stored, %v", data, entry.Value(), err)
		}
	})
}
