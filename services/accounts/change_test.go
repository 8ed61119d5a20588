package accounts_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
)

func TestSetChangesWhatIsGiven(t *testing.T) {
	b := setup(t)
	want := b.mustCreate(t, accounts.Spec{Name: "shop", Login: "ann", Password: "correct horse"}).Account

	want.Plan.Limit, want.Plan.AfterLapse = 500, streams.Hold
	if _, err := b.Set(t.Context(), "shop", accounts.Change{Limit: new(int64(500)), AfterLapse: new(streams.Hold)}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.mustFind(t, "shop")); diff != "" {
		t.Errorf("after limit and policy (-want +got):\n%s", diff)
	}

	want.Plan.Rate, want.Plan.Lease, want.Plan.Attempts = 0, time.Minute, 5
	want.Plan.AfterLapse, want.Subscription = "", streams.Subscription{None: true}
	change := accounts.Change{
		Rate: new(0), Lease: new(time.Minute), Attempts: new(5),
		AfterLapse: new(streams.LapsePolicy("")), Subscription: &streams.Subscription{None: true},
	}
	if _, err := b.Set(t.Context(), "shop", change); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.mustFind(t, "shop")); diff != "" {
		t.Errorf("after the rest (-want +got):\n%s", diff)
	}
}

func TestSetLogin(t *testing.T) {
	b := setup(t)
	b.mustCreate(t, accounts.Spec{Name: "shop", Login: "ann", Password: "correct horse"})
	b.mustCreate(t, accounts.Spec{Name: "other", Login: "bob", Password: "correct horse"})
	password := secret.String("battery staple")

	if _, err := b.Set(t.Context(), "shop", accounts.Change{Login: new("bob"), Password: &password}); !errors.Is(err, accounts.ErrTaken) {
		t.Errorf("another's login: got error %v, want ErrTaken", err)
	}
	if _, err := b.Set(t.Context(), "shop", accounts.Change{Login: new("eve")}); err == nil {
		t.Error("a new login without a password: got no error")
	}
	if _, err := b.Set(t.Context(), "shop", accounts.Change{Login: new("eve"), Password: &password, Rate: new(-1)}); err == nil {
		t.Error("a login beside a rate below 0: got no error")
	}
	if got := b.mustFind(t, "shop").Login; got != "ann" {
		t.Errorf("got login %q after refusals, want ann", got)
	}

	if _, err := b.Set(t.Context(), "shop", accounts.Change{Login: new("eve"), Password: &password}); err != nil {
		t.Fatal(err)
	}
	account := b.mustFind(t, "shop")
	if account.Login != "eve" || bcrypt.CompareHashAndPassword([]byte(account.Password), []byte(password.Reveal())) != nil {
		t.Errorf("got login %q and another password, want eve and the new one", account.Login)
	}
	// The login that was replaced is free again.
	if _, err := b.Set(t.Context(), "other", accounts.Change{Login: new("ann"), Password: &password}); err != nil {
		t.Errorf("take a login given free: %v", err)
	}
	if _, err := b.Set(t.Context(), "other", accounts.Change{Login: new("eve"), Password: &password}); !errors.Is(err, accounts.ErrTaken) {
		t.Errorf("take a login in use: got error %v, want ErrTaken", err)
	}
}

func TestSetUnknown(t *testing.T) {
	b := setup(t)
	if _, err := b.Set(t.Context(), "none", accounts.Change{Rate: new(1)}); !errors.Is(err, accounts.ErrUnknown) {
		t.Errorf("got error %v, want ErrUnknown", err)
	}
}

func TestSubscription(t *testing.T) {
	for text, want := range map[string]streams.Subscription{
		"active":     {},
		"none":       {None: true},
		"2026-12-31": {Until: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		got, err := accounts.ParseSubscription(text)
		if err != nil || got != want {
			t.Errorf("parse %s: got %v and error %v, want %v", text, got, err, want)
		}
		if back := accounts.FormatSubscription(want); back != text {
			t.Errorf("format %v: got %s, want %s", want, back, text)
		}
	}
	for _, text := range []string{"", "Active", "31.12.2026", "2026-02-30"} {
		if _, err := accounts.ParseSubscription(text); err == nil {
			t.Errorf("parse %q: got no error", text)
		}
	}
	last, err := accounts.ParseSubscription("2026-12-31")
	if err != nil {
		t.Fatal(err)
	}
	if end := time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC); !last.Active(end) || last.Active(end.Add(time.Second)) {
		t.Error("a last day is not good until its end in UTC")
	}
}
