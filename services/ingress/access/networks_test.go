package access

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

func registry(t *testing.T, c *Access) jetstream.KeyValue {
	t.Helper()
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.RegistryBucket)
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

// storedNetworks reads what is stored of an account.
func storedNetworks(t *testing.T, a *Access, account streams.AccountID) (map[string]int, uint64, error) {
	t.Helper()
	value, revision, err := a.registry.Get(t.Context(), streams.PlacesKey(account))
	return readNetworks(value), revision, err
}

// Two ingresses store where the logins of one account came from, and lose nothing of each other's.
func TestNetworks_Shared(t *testing.T) {
	a := newAccess(t)
	b := newAccessOn(t, a.bus)
	now := time.Now()
	b.networks.now = func() time.Time { return now }
	home, office, train := from("192.0.2.0/24"), from("198.51.100.0/24"), from("203.0.113.0/24")

	a.networks.note(account, home)
	b.networks.note(account, office)
	a.networks.store(t.Context())
	b.networks.store(t.Context())
	record, revision, err := storedNetworks(t, a, account.ID)
	if err != nil || len(record) != 2 {
		t.Fatalf("got %d places stored, %v, want those of both", len(record), err)
	}
	a.networks.store(t.Context())
	b.networks.store(t.Context())
	if _, again, err := storedNetworks(t, a, account.ID); err != nil || again != revision {
		t.Errorf("stored as revision %d though nothing was new, %v, want %d", again, err, revision)
	}

	if b.networks.known(t.Context(), account, train) {
		t.Error("known where nobody ever was")
	}
	a.networks.note(account, train)
	a.networks.store(t.Context())
	if now = now.Add(networksEvery - time.Second); b.networks.known(t.Context(), account, train) {
		t.Error("read again within a minute: who guesses makes it read as often")
	}
	if now = now.Add(time.Second); !b.networks.known(t.Context(), account, train) {
		t.Error("not read again after a minute")
	}
	before := b.bus.Conn.Stats().OutMsgs
	now = now.Add(time.Hour)
	if !b.networks.known(t.Context(), account, office) || b.bus.Conn.Stats().OutMsgs != before {
		t.Error("what is known was read again")
	}
}

// Without the engine nothing is known but what was seen, nothing of it is lost, and the log says so.
func TestNetworks_EngineAway(t *testing.T) {
	c := newAccess(t)
	other := newAccessOn(t, c.bus)
	log, told := observer.New(zap.WarnLevel)
	c.networks.log = zap.New(log)
	home, office := from("192.0.2.0/24"), from("198.51.100.0/24")
	other.networks.note(account, office)
	other.networks.store(t.Context())
	record, err := registry(t, c).Get(t.Context(), streams.PlacesKey(account.ID))
	if err != nil {
		t.Fatal(err)
	}

	if err := c.bus.JS.DeleteKeyValue(t.Context(), streams.RegistryBucket); err != nil {
		t.Fatal(err)
	}
	if c.networks.known(t.Context(), account, office) {
		t.Error("known without having been read")
	}
	c.networks.note(account, home)
	c.networks.store(t.Context())
	if n := told.Len(); n != 2 {
		t.Errorf("got %d lines in the log, want one for what was not read and one for what was not stored: %v", n, told.All())
	}

	if err := streams.Ensure(t.Context(), c.bus.JS, deployment, true); err != nil {
		t.Fatal(err)
	}
	if _, err := registry(t, c).Put(t.Context(), streams.PlacesKey(account.ID), record.Value()); err != nil {
		t.Fatal(err)
	}
	if !c.networks.known(t.Context(), account, office) {
		t.Error("not read again as soon as it can be")
	}
	c.networks.store(t.Context())
	if stored, _, err := storedNetworks(t, c, account.ID); err != nil || len(stored) != 2 {
		t.Errorf("got %d places stored, %v, want 2", len(stored), err)
	}
	if n := told.Len(); n != 2 {
		t.Errorf("got %d more lines in the log, want none", n-2)
	}
}

// What is new is stored when the ingress stops.
func TestNetworks_StoredAtTheEnd(t *testing.T) {
	c := newAccess(t)
	c.networks.note(account, from("192.0.2.0/24"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.networks.run(ctx)
	if stored, _, err := storedNetworks(t, c, account.ID); err != nil || len(stored) != 1 {
		t.Errorf("got %d places stored, %v, want 1", len(stored), err)
	}
}

// A place is known for thirty days, also if the clock was ahead once; what is kept of an account has a bound.
func TestNetworks(t *testing.T) {
	c := newAccess(t)
	a, begun := shopLogin(t), time.Now()
	now := begun
	c.networks.now = func() time.Time { return now }
	owner := Credentials{Name: "shop", From: home}
	c.networks.note(&a, owner)
	for days, want := range map[int]bool{0: true, 30: true, 31: false} {
		if now = begun.Add(time.Duration(days) * day); c.networks.known(t.Context(), &a, owner) != want {
			t.Errorf("after %d days: got %t, want %t", days, !want, want)
		}
	}
	for what, other := range map[string]Credentials{
		"another network": {Name: "shop", From: network(1)}, "another login": {Name: "Pixel", From: home}, "nowhere": {Name: "shop"},
	} {
		if now = begun; c.networks.known(t.Context(), &a, other) {
			t.Errorf("%s is known", what)
		}
	}
	now = begun.Add(400 * day)
	c.networks.note(&a, owner)
	c.networks.store(t.Context())
	now = begun
	again := newAccessOn(t, c.bus)
	at := now
	again.networks.now = func() time.Time { return at }
	if !again.networks.known(t.Context(), &a, owner) {
		t.Error("what was noted while the clock was ahead is lost")
	}
	again.networks.store(t.Context())
	if at = now.Add(31 * day); again.networks.known(t.Context(), &a, owner) {
		t.Error("what was noted while the clock was ahead is known for more than thirty days")
	}
	for i := range 2 * maxNetworks {
		c.networks.note(&a, Credentials{Name: "shop", From: network(i)})
	}
	c.networks.store(t.Context())
	record, _, err := storedNetworks(t, c, a.ID)
	if err != nil || len(record) != maxNetworks || len(c.networks.accounts[a.ID].days) != maxNetworks {
		t.Errorf("got %d places stored and %d in memory, %v, want %d", len(record), len(c.networks.accounts[a.ID].days), err, maxNetworks)
	}
}
