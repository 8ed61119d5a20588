package core

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// put stores a value in the accounts bucket and returns once the core acts on it.
func put(t testing.TB, c *Core, key string, value any) {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	revision, err := accountsBucket(t, c).Put(t.Context(), key, data)
	if err == nil {
		_, err = c.Seen(t.Context(), request.Seen{Revision: revision})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func accountsBucket(t testing.TB, c *Core) jetstream.KeyValue {
	t.Helper()
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.AccountsBucket)
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

func TestCore_Admit(t *testing.T) {
	c := newCore(t)
	now := time.Now()
	c.now = func() time.Time { return now }
	a := *account
	key := streams.AccountKey(a.ID)
	admit := func(token string, want error) Caller {
		t.Helper()
		caller, _, err := c.Admit(token, Posting)
		if !errors.Is(err, want) {
			t.Errorf("token %s: got %v, want %v", token, err, want)
		}
		return caller
	}

	admit("one", errToken)
	a.Tokens = []streams.Token{{Hash: streams.HashToken("one")}}
	put(t, c, key, a)
	if caller := admit("one", nil); caller.Account.Name != "acme" || !caller.Subscribed {
		t.Errorf("got %+v", caller)
	}
	admit("One", errToken)
	admit("", errToken)

	// Rotated: the old token works until its grace is over.
	a.Tokens = []streams.Token{{Hash: streams.HashToken("one"), Expires: now.Add(time.Hour)}, {Hash: streams.HashToken("two")}}
	put(t, c, key, a)
	admit("one", nil)
	admit("two", nil)
	now = now.Add(time.Hour)
	admit("one", errToken)
	admit("two", nil)

	// The subscription ends while nobody touches the account.
	a.Subscription.Until = now.Add(time.Minute)
	put(t, c, key, a)
	if err := admit("two", nil).MayEnqueue(); err != nil {
		t.Errorf("subscribed: got %v", err)
	}
	now = now.Add(time.Minute)
	if err := admit("two", nil).MayEnqueue(); !errors.Is(err, errSubscription) {
		t.Errorf("not subscribed any more: got %v", err)
	}

	a.Suspended = true
	put(t, c, key, a)
	admit("two", errSuspended)
	a.Suspended = false
	put(t, c, key, a)
	admit("two", nil)

	// Revisions of logins count too, and are no accounts.
	put(t, c, streams.LoginKey("acme"), a.ID)
	admit("two", nil)

	// Tokens of what cannot be read do not work.
	put(t, c, key, "nonsense")
	admit("two", errToken)
	put(t, c, key, a)
	admit("two", nil)

	if err := accountsBucket(t, c).Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	put(t, c, streams.LoginKey("other"), a.ID) // comes after the deletion
	admit("two", errToken)
	if n := len(c.accounts.tokens) + len(c.accounts.accounts); n != 0 {
		t.Errorf("%d tokens and accounts are left", n)
	}
}

// A token that moved to another account stays with it when the first one changes.
func TestAccounts_TokenMoves(t *testing.T) {
	c := newCore(t)
	a, b := *account, streams.Account{ID: streams.AccountIDOf("b"), Name: "b"}
	a.Tokens = []streams.Token{{Hash: streams.HashToken("one")}}
	b.Tokens = a.Tokens
	put(t, c, streams.AccountKey(a.ID), a)
	put(t, c, streams.AccountKey(b.ID), b)
	a.Tokens = nil
	put(t, c, streams.AccountKey(a.ID), a)
	if caller, _, err := c.Admit("one", Posting); err != nil || caller.Account.Name != "b" {
		t.Errorf("got %v, %v", caller.Account, err)
	}
}

func TestCore_Seen_NotInTime(t *testing.T) {
	c := newCore(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Seen(ctx, request.Seen{Revision: 1000})
		done <- err
	}()
	cancel()
	if err := <-done; !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
}
