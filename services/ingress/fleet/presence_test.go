package fleet

import (
	"context"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

func TestDeviceOnline(t *testing.T) {
	c := newFleet(t)
	now := time.Now()
	c.presence.now = func() time.Time { return now }
	other := &streams.Account{ID: streams.AccountIDOf("other"), Name: "other"}
	pixel, nexus := streams.DeviceIDOf(account.ID, "pixel"), streams.DeviceIDOf(account.ID, "nexus")
	tests := []struct {
		name   string
		caller access.Caller
		want   map[string]bool // by what happened last
	}{
		{"the account", access.Caller{Account: account}, map[string]bool{"pixel called": true, "nexus called": true, "only nexus": true}},
		{"the phone", access.Caller{Account: account, Device: pixel}, map[string]bool{"pixel called": true, "nexus called": true}},
		{"another phone", access.Caller{Account: account, Device: nexus}, map[string]bool{"nexus called": true, "only nexus": true}},
		{"another account", access.Caller{Account: other}, nil},
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
func TestDeviceOnline_Remembers(t *testing.T) {
	c := newFleet(t)
	now := time.Now()
	c.presence.now = func() time.Time { return now }
	caller := access.Caller{Account: account}
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

func TestPresence_Bound(t *testing.T) {
	now := time.Now()
	p := newPresence(func() time.Time { return now })
	for d := range streams.DeviceID(maxPresent + 10) {
		p.called(d + 1)
	}
	if len(p.seen) != maxPresent || len(p.news) != maxPresent {
		t.Errorf("got %d and %d devices in memory, want %d", len(p.seen), len(p.news), maxPresent)
	}
	now = now.Add(2 * onlineFor)
	p.called(1)
	if len(p.seen) != 1 {
		t.Errorf("got %d devices in memory later, want those that are online", len(p.seen))
	}
}

// A phone is online for a while after its last call, here or at another ingress.
func TestPresence_Online(t *testing.T) {
	now := time.Now()
	p := newPresence(func() time.Time { return now })
	p.called(1)
	p.heard(request.Contact{Device: 2, At: now.Add(-time.Minute)})
	p.heard(request.Contact{Device: 3, At: now.Add(time.Hour)}) // by a clock that is ahead
	for after, want := range map[time.Duration]int{0: 3, 31 * time.Second: 2, onlineFor: 0} {
		at := now
		now = now.Add(after)
		if got := p.count(); got != want {
			t.Errorf("after %v: got %d online, want %d", after, got, want)
		}
		now = at
	}
	if got := p.takeNews(); len(got) != 1 || got[0].Device != 1 || len(p.takeNews()) != 0 {
		t.Errorf("got %v to tell others, want what called here, once", got)
	}
}

// A phone that called at one ingress is online at the others.
func TestShare_Presence(t *testing.T) {
	c := newFleet(t)
	other := newFleetOn(t, c.bus)
	if _, err := c.devices.contact(t.Context(), account.ID, "pixel"); err != nil {
		t.Fatal(err)
	}
	id := streams.DeviceIDOf(account.ID, "pixel")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for other.presence.lastSeen(id).IsZero() {
		if clock.Sleep(ctx, 10*time.Millisecond) != nil {
			t.Fatal("not heard of")
		}
	}
}
