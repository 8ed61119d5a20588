package core

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/streams"
)

// from is a login's owner in a network of its own.
func from(network string) Credentials {
	return Credentials{Name: "shop", From: netip.MustParsePrefix(network)}
}

func registry(t *testing.T, c *Core) jetstream.KeyValue {
	t.Helper()
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.RegistryBucket)
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

// Two ingresses store where the logins of one account came from, and lose nothing of each other's.
func TestPlaces_Shared(t *testing.T) {
	a := newCore(t)
	b := newCoreOn(t, a.bus, 1)
	now := time.Now()
	b.now = func() time.Time { return now }
	home, office, train := from("192.0.2.0/24"), from("198.51.100.0/24"), from("203.0.113.0/24")

	a.here(account, home)
	b.here(account, office)
	a.storePlaces(t.Context())
	b.storePlaces(t.Context())
	record, revision, err := a.readPlaces(t.Context(), account.ID)
	if err != nil || len(record) != 2 {
		t.Fatalf("got %d places stored, %v, want those of both", len(record), err)
	}
	a.storePlaces(t.Context())
	b.storePlaces(t.Context())
	if _, again, err := a.readPlaces(t.Context(), account.ID); err != nil || again != revision {
		t.Errorf("stored as revision %d though nothing was new, %v, want %d", again, err, revision)
	}

	if b.wasHere(t.Context(), account, train) {
		t.Error("known where nobody ever was")
	}
	a.here(account, train)
	a.storePlaces(t.Context())
	if now = now.Add(placesEvery - time.Second); b.wasHere(t.Context(), account, train) {
		t.Error("read again within a minute: who guesses makes it read as often")
	}
	if now = now.Add(time.Second); !b.wasHere(t.Context(), account, train) {
		t.Error("not read again after a minute")
	}
	before := b.bus.Conn.Stats().OutMsgs
	now = now.Add(time.Hour)
	if !b.wasHere(t.Context(), account, office) || b.bus.Conn.Stats().OutMsgs != before {
		t.Error("what is known was read again")
	}
}

// Without the engine nothing is known but what was seen, nothing of it is lost, and the log says so.
func TestPlaces_EngineAway(t *testing.T) {
	c := newCore(t)
	other := newCoreOn(t, c.bus, 1)
	log, told := observer.New(zap.WarnLevel)
	c.log = zap.New(log)
	home, office := from("192.0.2.0/24"), from("198.51.100.0/24")
	other.here(account, office)
	other.storePlaces(t.Context())
	record, err := registry(t, c).Get(t.Context(), streams.PlacesKey(account.ID))
	if err != nil {
		t.Fatal(err)
	}

	if err := c.bus.JS.DeleteKeyValue(t.Context(), streams.RegistryBucket); err != nil {
		t.Fatal(err)
	}
	if c.wasHere(t.Context(), account, office) {
		t.Error("known without having been read")
	}
	c.here(account, home)
	c.storePlaces(t.Context())
	if n := told.Len(); n != 2 {
		t.Errorf("got %d lines in the log, want one for what was not read and one for what was not stored: %v", n, told.All())
	}

	if err := streams.Ensure(t.Context(), c.bus.JS, deployment, true); err != nil {
		t.Fatal(err)
	}
	if _, err := registry(t, c).Put(t.Context(), streams.PlacesKey(account.ID), record.Value()); err != nil {
		t.Fatal(err)
	}
	if !c.wasHere(t.Context(), account, office) {
		t.Error("not read again as soon as it can be")
	}
	c.storePlaces(t.Context())
	if stored, _, err := c.readPlaces(t.Context(), account.ID); err != nil || len(stored) != 2 {
		t.Errorf("got %d places stored, %v, want 2", len(stored), err)
	}
	if n := told.Len(); n != 2 {
		t.Errorf("got %d more lines in the log, want none", n-2)
	}
}

// What is new is stored when the ingress stops.
func TestPlaces_StoredAtTheEnd(t *testing.T) {
	c := newCore(t)
	c.here(account, from("192.0.2.0/24"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.keepPlaces(ctx)
	if stored, _, err := c.readPlaces(t.Context(), account.ID); err != nil || len(stored) != 1 {
		t.Errorf("got %d places stored, %v, want 1", len(stored), err)
	}
}
