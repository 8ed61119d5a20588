package core

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

func TestDevices(t *testing.T) {
	c := newCore(t)
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
	c := newCore(t)
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
	c := newCore(t)
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
	names, err := c.Devices(t.Context(), Caller{Account: account})
	if err != nil || len(names) != streams.MaxDevices {
		t.Errorf("got %d names, %v", len(names), err)
	}
}

// A report is stored also where the phone's name has no place. It still tells which phone it is.
func TestCore_Report_TooManyDevices(t *testing.T) {
	c := newCore(t)
	for i := range streams.MaxDevices {
		data := fmt.Appendf(nil, `{"last_seen":%q}`, time.Now().Format(time.RFC3339))
		if _, err := c.bus.JS.PublishAsync("$KV.devices."+streams.DeviceKey(account.ID, streams.DeviceID(i+1)), data); err != nil {
			t.Fatal(err)
		}
	}
	<-c.bus.JS.PublishAsyncComplete()
	if _, err := c.Pull(t.Context(), Pull{Caller: Caller{Account: account}, Device: "Phone", Limit: 1}); !errors.Is(err, errDevices) {
		t.Errorf("a pull: got %v", err)
	}
	if got, err := c.Report(t.Context(), reports(streams.Delivered)); err != nil || got.Updated != 1 {
		t.Fatalf("a report: got %+v, %v", got, err)
	}
	msg, err := c.bus.LastForSubject(t.Context(), streams.StatusStream(0), streams.ReportSubject(0, account.ID))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := event.Decode[event.Reported](msg.Data); err != nil || len(e.Messages) != 1 || e.Name != "" || e.Device != streams.DeviceIDOf(account.ID, "Phone") {
		t.Errorf("stored %+v, %v", e, err)
	}
}
