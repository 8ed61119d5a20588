package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
)

func TestDevices(t *testing.T) {
	c := newFleet(t)
	now := time.Now()
	c.devices.now = func() time.Time { return now }
	elsewhere := newDevices(c.bus, zap.NewNop(), func() time.Time { return now }, c.presence)
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.DevicesBucket)
	if err != nil {
		t.Fatal(err)
	}
	id := streams.DeviceIDOf(account.ID, "Phone")
	// contact expects a name's contact at one ingress to leave a revision.
	contact := func(d *devices, wantRevision uint64) {
		t.Helper()
		if got, err := d.contact(t.Context(), account.ID, "Phone"); err != nil || got != id {
			t.Fatalf("contact: got %v, %v", got, err)
		}
		entry, err := bucket.Get(t.Context(), streams.DeviceKey(account.ID, id))
		if err != nil {
			t.Fatal(err)
		}
		if entry.Revision() != wantRevision {
			t.Errorf("got revision %d, want %d", entry.Revision(), wantRevision)
		}
	}
	contact(c.devices, 1)
	now = now.Add(4 * time.Minute)
	contact(c.devices, 1)
	contact(elsewhere, 1) // another ingress finds it fresh
	now = now.Add(time.Minute)
	contact(c.devices, 2)
	now = now.Add(time.Minute)
	contact(elsewhere, 2) // learns that somebody wrote
	now = now.Add(5 * time.Minute)
	contact(elsewhere, 3)
	contact(c.devices, 3)
	contact(newDevices(c.bus, zap.NewNop(), c.devices.now, c.presence), 3)

	entry, err := bucket.Get(t.Context(), streams.DeviceKey(account.ID, id))
	if err != nil {
		t.Fatal(err)
	}
	var got streams.Device
	if err := json.Unmarshal(entry.Value(), &got); err != nil || got.Name != "Phone" || got.ID != id || !got.LastSeen.Equal(now) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := c.devices.contact(t.Context(), account.ID, ""); got != 0 || err != nil {
		t.Errorf("no name: got %v, %v", got, err)
	}
}

// An account has at most so many names; those that it has go on working.
func TestDevices_TooMany(t *testing.T) {
	c := newFleet(t)
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.DevicesBucket)
	if err != nil {
		t.Fatal(err)
	}
	for i := range streams.MaxDevices - 1 {
		name := fmt.Sprint("phone ", i)
		device := streams.Device{ID: streams.DeviceIDOf(account.ID, name), Name: name, LastSeen: time.Now()}
		data, err := json.Marshal(device)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.bus.JS.PublishAsync("$KV."+bucket.Bucket()+"."+streams.DeviceKey(account.ID, device.ID), data); err != nil {
			t.Fatal(err)
		}
	}
	<-c.bus.JS.PublishAsyncComplete()
	for _, step := range []struct {
		account streams.AccountID
		name    string
		want    error
	}{
		{account.ID, "the last", nil},
		{account.ID, "one more", errDevices},
		{account.ID, "phone 7", nil},
		{account.ID, "the last", nil},
		{account.ID + 1, "one more", nil},
	} {
		if _, err := c.devices.contact(t.Context(), step.account, step.name); !errors.Is(err, step.want) {
			t.Errorf("%s: got %v, want %v", step.name, err, step.want)
		}
		// A name that is refused is no phone that is online.
		if got, want := c.presence.online(streams.DeviceIDOf(step.account, step.name)), step.want == nil; got != want {
			t.Errorf("%s: got online %v, want %v", step.name, got, want)
		}
	}
	status, err := bucket.Status(t.Context())
	if got := status.Values(); err != nil || got != streams.MaxDevices+1 {
		t.Errorf("got %d devices, %v", got, err)
	}
}

func TestDevices_Bounded(t *testing.T) {
	d := newDevices(nil, zap.NewNop(), time.Now, newPresence(time.Now))
	for i := range maxKnown + 100 {
		d.remember(streams.DeviceID(i), known{})
	}
	if got := len(d.known); got != maxKnown {
		t.Errorf("got %d in memory, want %d", got, maxKnown)
	}
}

// A name that nobody used for long gives its place up to a new one, and no other.
func TestDevices_GiveTheirPlacesUp(t *testing.T) {
	c := newFleet(t)
	now := time.Now()
	c.devices.now = func() time.Time { return now }
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.DevicesBucket)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, created, seen time.Time) {
		t.Helper()
		device := streams.Device{ID: streams.DeviceIDOf(account.ID, name), Name: name, Created: created, LastSeen: seen}
		data, err := json.Marshal(device)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.bus.JS.PublishAsync("$KV.devices."+streams.DeviceKey(account.ID, device.ID), data); err != nil {
			t.Fatal(err)
		}
	}
	const day = 24 * time.Hour
	for i := range streams.MaxDevices - 4 {
		put(fmt.Sprint("phone ", i), now.Add(-300*day), now.Add(-29*day))
	}
	put("just made", now.Add(-29*day), time.Time{})
	put("old", now.Add(-300*day), now.Add(-31*day))
	put("older", now.Add(-300*day), now.Add(-32*day))
	put("here", now.Add(-300*day), now.Add(-40*day))
	<-c.bus.JS.PublishAsyncComplete()
	c.presence.called(streams.DeviceIDOf(account.ID, "here")) // which is not written yet
	for _, step := range []struct {
		name, gone string
		want       error
	}{{"first", "older", nil}, {"second", "old", nil}, {"third", "", errDevices}, {"just made", "", nil}, {"here", "", nil}} {
		if _, err := c.devices.contact(t.Context(), account.ID, step.name); !errors.Is(err, step.want) {
			t.Fatalf("%s: got %v, want %v", step.name, err, step.want)
		}
		if step.gone == "" {
			continue
		}
		if _, err := bucket.Get(t.Context(), streams.DeviceKey(account.ID, streams.DeviceIDOf(account.ID, step.gone))); !errors.Is(err, jetstream.ErrKeyNotFound) {
			t.Errorf("%s: %s is still there: %v", step.name, step.gone, err)
		}
	}
	names, err := c.Devices(t.Context(), access.Caller{Account: account})
	if err != nil || len(names) != streams.MaxDevices {
		t.Errorf("got %d names, %v", len(names), err)
	}
}

// FuzzDevice: whatever the devices bucket holds under a phone's key, the phone is served, and is known afterwards.
func FuzzDevice(f *testing.F) {
	c := newFleet(f)
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

// An engine that does not say which devices there are is not waited for.
func TestDevices_Late(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		bustest.Mute(t, b)
		begun := time.Now()
		_, err := newDevices(b, zap.NewNop(), time.Now, newPresence(time.Now)).contact(t.Context(), account.ID, "Pixel")
		if f := fault.As(err); f == nil || f.Code != "devices_unavailable" || time.Since(begun) != 2*time.Second {
			t.Errorf("got %v after %s, want a refusal after 2s", err, time.Since(begun))
		}
	})
}

// A phone that is known is not refused where the engine does not say in time when it was seen last.
func TestDevices_KnownAndLate(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
			t.Fatal(err)
		}
		d := newDevices(b, zap.NewNop(), time.Now, newPresence(time.Now))
		if _, err := d.contact(t.Context(), account.ID, "Pixel"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(seenEvery)
		speak := bustest.Mute(t, b)
		var all sync.WaitGroup
		for range 3 { // one asks, and the others wait for it
			all.Go(func() {
				if id, err := d.contact(t.Context(), account.ID, "Pixel"); err != nil || id != streams.DeviceIDOf(account.ID, "Pixel") {
					t.Errorf("got %v, %v, want the phone's id", id, err)
				}
			})
		}
		all.Wait()
		speak()
		if _, err := d.contact(t.Context(), account.ID, "Pixel"); err != nil || !d.isFresh(streams.DeviceIDOf(account.ID, "Pixel"), time.Now()) {
			t.Errorf("got %v, and the next contact was not written", err)
		}
	})
}

// An account whose devices take their time keeps no other waiting, and its own no longer than one of them.
func TestDevices_Crowd(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		bustest.Mute(t, b)
		d := newDevices(b, zap.NewNop(), time.Now, newPresence(time.Now))
		var wg sync.WaitGroup
		for n := range 256 {
			wg.Go(func() {
				begun := time.Now()
				_, err := d.contact(t.Context(), streams.AccountID(1+n/2), fmt.Sprint("phone-", n))
				if f := fault.As(err); f == nil || f.Code != "devices_unavailable" || time.Since(begun) != 2*time.Second {
					t.Errorf("got %v after %s, want a refusal after 2s", err, time.Since(begun))
				}
			})
		}
		wg.Wait()
	})
}

// A phone that calls again soon costs no question to the engine.
func TestDevices_ContactAgain(t *testing.T) {
	c := newFleet(t)
	contact := func() {
		t.Helper()
		if _, err := c.devices.contact(t.Context(), account.ID, "pixel"); err != nil {
			t.Fatal(err)
		}
	}
	contact()
	asked := uint64(1)
	for try := 0; try < 5 && asked > 0; try++ { // once a second it tells other ingresses who called
		before := c.bus.Conn.Stats().OutMsgs
		contact()
		asked = c.bus.Conn.Stats().OutMsgs - before
	}
	if asked > 0 {
		t.Errorf("asked %d times, want never", asked)
	}
}

// A phone that called since its record was written is shown as seen then.
func TestDevices_SeenSince(t *testing.T) {
	c := newFleet(t)
	now := time.Now()
	c.devices.now, c.presence.now = func() time.Time { return now }, func() time.Time { return now }
	for range 2 {
		if _, err := c.devices.contact(t.Context(), account.ID, "pixel"); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
	all, err := c.Devices(t.Context(), access.Caller{Account: account})
	if want := now.Add(-time.Second); err != nil || len(all) != 1 || !all[0].LastSeen.Equal(want) {
		t.Errorf("got %+v, %v, want one that was seen at %v", all, err, want)
	}
}

// What the commands write of a phone before it has called does not keep it from being noted.
func TestDevices_ContactAfterCreation(t *testing.T) {
	c := newFleet(t)
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
	all, err := c.list(t.Context(), account.ID)
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

func TestDevices_Contact(t *testing.T) {
	c := newFleet(t)
	owner := access.Caller{Account: account}
	stranger := access.Caller{Account: &streams.Account{ID: streams.AccountIDOf("stranger"), Name: "stranger"}}
	for _, name := range []string{"Pixel", "Nexus"} {
		if _, err := c.devices.contact(t.Context(), account.ID, name); err != nil {
			t.Fatal(err)
		}
	}
	all, err := c.Devices(t.Context(), owner)
	if err != nil || len(all) != 2 || all[0].Name != "Nexus" || all[0].Created.IsZero() || all[0].LastSeen.IsZero() {
		t.Fatalf("got %+v, %v", all, err)
	}
	if c.Online() != 2 {
		t.Errorf("got %d phones online, want 2", c.Online())
	}
	pixel := streams.DeviceIDOf(account.ID, "Pixel")
	if err := c.RemoveDevice(t.Context(), stranger, pixel); err != nil {
		t.Fatal(err)
	}
	for _, id := range []streams.DeviceID{pixel, pixel, 7} {
		if err := c.RemoveDevice(t.Context(), owner, id); err != nil {
			t.Errorf("remove %s: %v", id, err)
		}
	}
	if all, err = c.Devices(t.Context(), owner); err != nil || len(all) != 1 {
		t.Errorf("got %+v, %v", all, err)
	}
	if _, err := c.devices.contact(t.Context(), account.ID, "Pixel"); err != nil {
		t.Errorf("it comes back: %v", err)
	}
	if all, err = c.Devices(t.Context(), owner); err != nil || len(all) != 2 {
		t.Errorf("got %+v, %v", all, err)
	}
	if all, err = c.Devices(t.Context(), stranger); err != nil || len(all) != 0 {
		t.Errorf("got %+v of another account, %v", all, err)
	}
}
