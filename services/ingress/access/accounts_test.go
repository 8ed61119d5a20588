package access

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// put stores a value in the accounts bucket and returns once the core acts on it.
func put(t testing.TB, c *Access, key string, value any) {
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

func accountsBucket(t testing.TB, c *Access) jetstream.KeyValue {
	t.Helper()
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.AccountsBucket)
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

func TestAdmit(t *testing.T) {
	c := newAccess(t)
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
	c := newAccess(t)
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

func TestSeen_NotInTime(t *testing.T) {
	c := newAccess(t)
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

// The text of an error that cannot be read is not told of one that can.
func TestAccounts_Log(t *testing.T) {
	c := newAccess(t)
	log, told := observer.New(zap.ErrorLevel)
	c.accounts.log = zap.New(log)
	putAccount(t, c, shopLogin(t))
	if told.Len() != 0 {
		t.Errorf("an account that can be read: got %v", told.All())
	}
	put(t, c, streams.AccountKey(streams.AccountIDOf("other")), shopLogin(t))
	if told.Len() != 1 {
		t.Errorf("one that is another's: got %v", told.All())
	}
}

// FuzzAccount: whatever the accounts bucket holds under an account's key, others are admitted as before, and its own
// token as the record says or not at all; a record that is read is written as what reads the same.
func FuzzAccount(f *testing.F) {
	c := newAccess(f)
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
