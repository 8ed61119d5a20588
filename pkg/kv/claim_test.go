package kv

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// claimsIn makes a bucket, and Claims in it with a TTL of ttl.
func claimsIn(t *testing.T, b *bus.Bus, ttl time.Duration) Claims {
	t.Helper()
	bucket, err := b.JS.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "claims", TTL: time.Hour, Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	return Claims{Bucket: bucket, TTL: ttl, Now: time.Now, Log: zap.NewNop()}
}

func taken(t *testing.T, c Claims, value string) *Claim {
	t.Helper()
	own, err := c.Take(t.Context(), "leader", []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return own
}

func TestClaim_OneHolderAtATime(t *testing.T) {
	c := claimsIn(t, bustest.New(t), time.Minute)
	first := taken(t, c, "first")
	if _, err := c.Take(t.Context(), "leader", []byte("second")); !errors.Is(err, ErrClaimTaken) {
		t.Errorf("a claim that another holds: got %v, want ErrClaimTaken", err)
	}
	if _, err := c.Take(t.Context(), "another", []byte("second")); err != nil {
		t.Errorf("a claim that nobody holds: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := first.GiveBack(gone); err != nil { // as a stop does
		t.Fatal(err)
	}
	if second := taken(t, c, "second"); second.Created() <= first.Created() {
		t.Errorf("the next holder is %d, want more than %d", second.Created(), first.Created())
	}
}

// A claim whose making was not answered is its maker's.
func TestClaim_AnswerLostWhenTaken(t *testing.T) {
	c := claimsIn(t, bustest.New(t), time.Minute)
	created, err := c.Bucket.Create(t.Context(), "leader", []byte("ours"))
	if err != nil {
		t.Fatal(err)
	}
	own := taken(t, c, "ours")
	if own.Created() != created || own.revision <= created {
		t.Errorf("got %+v, want the one created at %d, renewed", own, created)
	}
}

// A holder relies on its claim for less than the bucket keeps it, counted from before it was asked for.
func TestClaim_Until(t *testing.T) {
	c := claimsIn(t, bustest.New(t), 8*time.Second)
	now := time.Now()
	c.Now = func() time.Time { now = now.Add(time.Second); return now }
	if own := taken(t, c, "ours"); !own.Until().Equal(now.Add(6*time.Second)) || c.RenewEvery() != 2*time.Second {
		t.Errorf("relied on until %v after it was sent, renewed every %v", own.Until().Sub(now), c.RenewEvery())
	}
}

// A renewal that is lost is no reason to wait for the next: it is sent again while the claim lasts.
func TestClaim_RenewedAgain(t *testing.T) {
	dir := t.TempDir()
	server, b := bustest.Start(t, dir)
	t.Cleanup(server.Stop)
	near := claimsIn(t, b, 2*time.Second)
	network := bustest.NewNetwork(func() (net.Conn, error) { return server.InProcessConn() })
	key, err := nats.NkeyOptionFromSeed(filepath.Join(dir, "keys", "engine.nk"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect("", key, nats.InProcessServer(network), nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	far, err := bus.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	c := claimsIn(t, far, near.TTL)
	var stopped bustest.Stopped
	var warned atomic.Bool
	c.Log = zap.NewExample(zap.Hooks(func(zapcore.Entry) error { // it was not answered
		warned.Store(true)
		stopped.Cut()
		return nil
	}))
	now := time.Now()
	c.Now = func() time.Time { return now }
	own := taken(t, c, "ours")
	now = now.Add(c.RelyFor() - 1) // the last moment
	before := own.revision
	stopped = network.Stop()
	var told time.Time
	if err := own.renew(t.Context(), func(until time.Time) { told = until }); err != nil {
		t.Fatal(err)
	}
	entry, err := near.Bucket.Get(t.Context(), "leader")
	if err != nil || entry.Revision() != own.revision || own.revision <= before || !own.Until().Equal(now.Add(c.RelyFor())) || !told.Equal(own.Until()) || !warned.Load() {
		t.Errorf("got revision %d until %v, told %v, stored %+v, %v", own.revision, own.Until(), told, entry, err)
	}
	// One that was stored and not answered counts from when it was sent.
	sent := now
	if _, err := near.Bucket.Update(t.Context(), "leader", []byte("ours"), own.revision); err != nil {
		t.Fatal(err)
	}
	own.unheard, now = sent, now.Add(time.Second)
	if err := own.recognise(t.Context()); err != nil || !own.Until().Equal(sent.Add(c.RelyFor())) || own.revision != entry.Revision()+1 {
		t.Errorf("what was not answered: got %+v, %v", own, err)
	}
}

func TestClaim_Lost(t *testing.T) {
	for name, lose := range map[string]func(Claims) error{
		"to another": func(c Claims) error {
			_, err := c.Bucket.PutString(context.Background(), "leader", "another")
			return err
		},
		"deleted": func(c Claims) error { return c.Bucket.Delete(context.Background(), "leader") },
	} {
		t.Run(name, func(t *testing.T) {
			c := claimsIn(t, bustest.New(t), 400*time.Millisecond)
			own := taken(t, c, "ours")
			if err := lose(c); err != nil {
				t.Fatal(err)
			}
			if err := own.Hold(t.Context(), func(time.Time) {}); !errors.Is(err, ErrClaimLost) {
				t.Errorf("got %v, want ErrClaimLost", err)
			}
			if err := own.GiveBack(t.Context()); err != nil {
				t.Error(err)
			}
			if entry, err := c.Bucket.Get(t.Context(), "leader"); name == "to another" && (err != nil || string(entry.Value()) != "another") {
				t.Errorf("the other's claim was given back: %v", err)
			}
		})
	}
}

// A claim is not relied on beyond its time, whatever keeps it from being renewed.
func TestClaim_NotRenewedInTime(t *testing.T) {
	b := bustest.New(t)
	c := claimsIn(t, b, 400*time.Millisecond)
	own := taken(t, c, "ours")
	b.Conn.Close()
	until := own.Until()
	if err := own.Hold(t.Context(), func(time.Time) {}); !errors.Is(err, ErrClaimLost) || time.Now().Before(until) || !own.Until().Equal(until) {
		t.Errorf("got %v at %v, relied on until %v, want ErrClaimLost at %v", err, time.Now(), own.Until(), until)
	}
}

// What an entry says that is older than the last write is a node's that has not heard of it.
func TestClaim_EntryFromBefore(t *testing.T) {
	c := claimsIn(t, bustest.New(t), time.Minute)
	before, err := c.Bucket.PutString(t.Context(), "leader", "another")
	if err != nil {
		t.Fatal(err)
	}
	own := &Claim{claims: c, key: "leader", value: []byte("ours"), revision: before + 1}
	if err := own.recognise(t.Context()); err == nil || errors.Is(err, ErrClaimLost) {
		t.Errorf("got %v, want an error after which it is tried again", err)
	}
}
