package core

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

func TestCore_DeviceOnline(t *testing.T) {
	c := newCore(t)
	now := time.Now()
	c.presence.now = func() time.Time { return now }
	other := &streams.Account{ID: streams.AccountIDOf("other"), Name: "other"}
	pixel, nexus := streams.DeviceIDOf(account.ID, "pixel"), streams.DeviceIDOf(account.ID, "nexus")
	tests := []struct {
		name   string
		caller Caller
		want   map[string]bool // by what happened last
	}{
		{"the account", Caller{Account: account}, map[string]bool{"pixel called": true, "nexus called": true, "only nexus": true}},
		{"the phone", Caller{Account: account, Device: pixel}, map[string]bool{"pixel called": true, "nexus called": true}},
		{"another phone", Caller{Account: account, Device: nexus}, map[string]bool{"nexus called": true, "only nexus": true}},
		{"another account", Caller{Account: other}, nil},
	}
	steps := []struct {
		name  string
		after time.Duration
		calls string
	}{
		{"nothing", 0, ""},
		{"pixel called", lookAgain, "pixel"},
		{"nexus called", onlineFor - 1, "nexus"},
		{"only nexus", 1, ""},
		{"none for long", onlineFor, ""},
	}
	for _, step := range steps {
		now = now.Add(step.after)
		if _, err := c.devices.contact(t.Context(), account.ID, step.calls); err != nil {
			t.Fatal(err)
		}
		for _, test := range tests {
			if got, want := c.DeviceOnline(t.Context(), test.caller), test.want[step.name]; got != want {
				t.Errorf("%s, %s: got %v, want %v", step.name, test.name, got, want)
			}
		}
	}
}

// An account whose phones are all offline is not looked through again for a moment.
func TestCore_DeviceOnline_Remembers(t *testing.T) {
	c := newCore(t)
	now := time.Now()
	c.presence.now = func() time.Time { return now }
	caller := Caller{Account: account}
	if c.DeviceOnline(t.Context(), caller) {
		t.Error("got online before anybody called")
	}
	if _, err := c.devices.contact(t.Context(), account.ID, "pixel"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookAgain - 1)
	if c.DeviceOnline(t.Context(), caller) {
		t.Errorf("got online within %v: the phones were looked through again", lookAgain)
	}
	now = now.Add(1)
	if !c.DeviceOnline(t.Context(), caller) {
		t.Errorf("got offline after %v", lookAgain)
	}
	// Which one is online is known without the bucket.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if !c.DeviceOnline(ended, caller) {
		t.Error("got offline where nothing can be looked up")
	}
	now = now.Add(onlineFor)
	if c.DeviceOnline(ended, caller) {
		t.Error("got online where nothing is known and nothing can be looked up")
	}
}

func TestCore_Sequence(t *testing.T) {
	c := newCore(t)
	caller := Caller{Account: account}
	if _, err := c.Sequence(t.Context(), caller, 7); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without a dispatcher: got %v, want Unavailable", err)
	}
	serve(t, c.bus, request.DispatcherFind(0), func(_ context.Context, q request.Find) (request.Found, error) {
		if q.Account != account.ID || q.Ref != streams.MessageID(7).String() {
			return request.Found{}, nil
		}
		return request.Found{Group: &request.Group{ID: 6, Messages: []request.Member{{ID: 6, Seq: 4}, {ID: 7, Seq: 5}}}}, nil
	})
	if got, err := c.Sequence(t.Context(), caller, 7); got != 5 || err != nil {
		t.Errorf("got %d, %v, want 5", got, err)
	}
	if _, err := c.Sequence(t.Context(), caller, 8); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown: got %v, want NotFound", err)
	}
}

// What the commands write of a phone before it has called does not keep it from being noted.
func TestDevices_ContactAfterCreation(t *testing.T) {
	c := newCore(t)
	made := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	id := streams.DeviceIDOf(account.ID, "pixel")
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.DevicesBucket)
	if err != nil {
		t.Fatal(err)
	}
	putDevice(t, bucket, streams.Device{ID: id, Name: "pixel", Created: made})
	if _, err := c.devices.contact(t.Context(), account.ID, "pixel"); err != nil {
		t.Fatal(err)
	}
	all, err := list[streams.Device](t.Context(), c, streams.DevicesBucket, streams.DeviceKeys(account.ID))
	if err != nil || len(all) != 1 || !all[0].Created.Equal(made) || time.Since(all[0].LastSeen) > time.Minute {
		t.Errorf("got %+v, %v, want one that was just seen", all, err)
	}
}

func putDevice(t *testing.T, bucket jetstream.KeyValue, d streams.Device) {
	t.Helper()
	value, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(t.Context(), streams.DeviceKey(account.ID, d.ID), value); err != nil {
		t.Fatal(err)
	}
}
