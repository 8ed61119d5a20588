package accounts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
)

const password = secret.String("correct horse")

func (b *bench) mustAdd(t *testing.T, account, name string) {
	t.Helper()
	if _, err := b.AddDevice(t.Context(), account, name, password); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) mustDevices(t *testing.T, account string) []streams.Device {
	t.Helper()
	all, err := b.Devices(t.Context(), streams.AccountIDOf(account))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAddDevice(t *testing.T) {
	b := setup(t)
	shop := b.mustCreate(t, accounts.Spec{Name: "shop"}).Account.ID
	b.mustAdd(t, "shop", "pixel")
	b.mustAdd(t, "shop", "Büro links")

	logins := b.mustFind(t, "shop").Devices
	var got []streams.Login
	for _, l := range logins {
		if bcrypt.CompareHashAndPassword([]byte(l.Password), []byte(password.Reveal())) != nil {
			t.Errorf("%s has another password", l.Name)
		}
		l.Password = ""
		got = append(got, l)
	}
	want := []streams.Login{
		{Device: streams.DeviceIDOf(shop, "Büro links"), Name: "Büro links"},
		{Device: streams.DeviceIDOf(shop, "pixel"), Name: "pixel"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("logins (-want +got):\n%s", diff)
	}
	known := []streams.Device{{ID: want[0].Device, Name: "Büro links", Created: start}, {ID: want[1].Device, Name: "pixel", Created: start}}
	if diff := cmp.Diff(known, b.mustDevices(t, "shop")); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

// A phone that has called before stays as it is known.
func TestAddDevice_Known(t *testing.T) {
	b := setup(t)
	shop := b.mustCreate(t, accounts.Spec{Name: "shop"}).Account.ID
	called := streams.Device{ID: streams.DeviceIDOf(shop, "pixel"), Name: "pixel", Created: start.Add(-time.Hour), LastSeen: start.Add(-time.Minute)}
	b.putDevice(t, shop, called)
	b.mustAdd(t, "shop", "pixel")
	if diff := cmp.Diff([]streams.Device{called}, b.mustDevices(t, "shop")); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

func (b *bench) putDevice(t *testing.T, account streams.AccountID, d streams.Device) {
	t.Helper()
	kv, err := b.bus.JS.KeyValue(t.Context(), streams.DevicesBucket)
	if err != nil {
		t.Fatal(err)
	}
	value, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), streams.DeviceKey(account, d.ID), value); err != nil {
		t.Fatal(err)
	}
}

// A login is one account's or one phone's, in the whole deployment.
func TestAddDevice_Taken(t *testing.T) {
	b := setup(t)
	b.mustCreate(t, accounts.Spec{Name: "shop", Login: "ann", Password: password})
	b.mustCreate(t, accounts.Spec{Name: "other", Login: "bob", Password: password})
	b.mustAdd(t, "shop", "pixel")

	for _, name := range []string{"ann", "bob", "pixel"} {
		if _, err := b.AddDevice(t.Context(), "shop", name, password); !errors.Is(err, accounts.ErrTaken) {
			t.Errorf("a phone named %s: got error %v, want ErrTaken", name, err)
		}
	}
	if _, err := b.AddDevice(t.Context(), "other", "pixel", password); !errors.Is(err, accounts.ErrTaken) {
		t.Errorf("another's phone: got error %v, want ErrTaken", err)
	}
	for _, account := range []string{"shop", "other"} {
		change := accounts.Change{Login: new("pixel"), Password: new(password)}
		if _, err := b.Set(t.Context(), account, change); !errors.Is(err, accounts.ErrTaken) {
			t.Errorf("a phone's login for %s: got error %v, want ErrTaken", account, err)
		}
	}
	if _, err := b.Create(t.Context(), accounts.Spec{Name: "shop", Plan: accounts.DefaultPlan(), Login: "pixel", Password: password}); !errors.Is(err, accounts.ErrTaken) {
		t.Errorf("an account of that name and the phone's login: got error %v, want ErrTaken", err)
	}
	// What was refused has freed no login that is in use.
	for _, name := range []string{"ann", "bob", "pixel"} {
		if _, err := b.Create(t.Context(), accounts.Spec{Name: "third", Plan: accounts.DefaultPlan(), Login: name, Password: password}); !errors.Is(err, accounts.ErrTaken) {
			t.Errorf("login %s: got error %v, want ErrTaken", name, err)
		}
	}
	if got := len(b.mustFind(t, "shop").Devices); got != 1 {
		t.Errorf("got %d logins of phones, want 1", got)
	}
}

func TestAddDevice_Refuses(t *testing.T) {
	b := setup(t)
	b.mustCreate(t, accounts.Spec{Name: "shop"})
	tests := []struct {
		account, name string
		password      secret.String
		want          string
	}{
		{"shop", "", password, "device name: want 1 to 64"},
		{"shop", "a:b", password, "device name: want 1 to 64"},
		{"shop", strings.Repeat("é", 65), password, "device name: want 1 to 64"},
		{"shop", "pixel", "", "a login needs a password"},
		{"shop", "pixel", "1234567", "password: want 8"},
		{"none", "pixel", password, "is not known"},
	}
	for _, test := range tests {
		_, err := b.AddDevice(t.Context(), test.account, test.name, test.password)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q in %s: got error %v, want one with %q", test.name, test.account, err, test.want)
		}
	}
	b.mustAdd(t, "shop", strings.Repeat("é", 64))
}

func TestAddDevice_TooMany(t *testing.T) {
	b := setup(t)
	shop := b.mustCreate(t, accounts.Spec{Name: "shop"}).Account
	kv, err := b.bus.JS.KeyValue(t.Context(), streams.AccountsBucket)
	if err != nil {
		t.Fatal(err)
	}
	for i := range streams.MaxDevices {
		name := fmt.Sprintf("p%04d", i)
		shop.Devices = append(shop.Devices, streams.Login{Device: streams.DeviceIDOf(shop.ID, name), Name: name, Password: strings.Repeat("x", 60)})
	}
	store := func() {
		t.Helper()
		value, err := json.Marshal(shop)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(t.Context(), streams.AccountKey(shop.ID), value); err != nil {
			t.Fatal(err)
		}
	}
	store()
	if _, err := b.AddDevice(t.Context(), "shop", "pixel", password); err == nil || !strings.Contains(err.Error(), "has 1000 phones already") {
		t.Errorf("beside 1000 logins: got error %v", err)
	}
	shop.Devices = shop.Devices[1:]
	store()
	b.mustAdd(t, "shop", "pixel")

	// Phones that gave a name count too.
	other := b.mustCreate(t, accounts.Spec{Name: "other"}).Account
	for i := range streams.MaxDevices {
		name := fmt.Sprintf("p%04d", i)
		b.putDevice(t, other.ID, streams.Device{ID: streams.DeviceIDOf(other.ID, name), Name: name})
	}
	if _, err := b.AddDevice(t.Context(), "other", "nexus", password); err == nil || !strings.Contains(err.Error(), "has 1000 phones already") {
		t.Errorf("beside 1000 names: got error %v", err)
	}
	b.mustAdd(t, "other", "p0007")
}

func TestRemoveDevice(t *testing.T) {
	b := setup(t)
	shop := b.mustCreate(t, accounts.Spec{Name: "shop"}).Account.ID
	b.mustCreate(t, accounts.Spec{Name: "other"})
	b.mustAdd(t, "shop", "pixel")
	b.mustAdd(t, "shop", "nexus")
	b.putDevice(t, shop, streams.Device{ID: streams.DeviceIDOf(shop, "named"), Name: "named"})

	if _, err := b.RemoveDevice(t.Context(), "other", "pixel"); !errors.Is(err, accounts.ErrUnknown) {
		t.Errorf("another's phone: got error %v, want ErrUnknown", err)
	}
	if revision, err := b.RemoveDevice(t.Context(), "shop", "pixel"); err != nil || revision == 0 {
		t.Errorf("got revision %d and error %v", revision, err)
	}
	// One without a login is forgotten too.
	if revision, err := b.RemoveDevice(t.Context(), "shop", "named"); err != nil || revision != 0 {
		t.Errorf("a phone without a login: got revision %d and error %v, want 0", revision, err)
	}
	if _, err := b.RemoveDevice(t.Context(), "shop", "pixel"); !errors.Is(err, accounts.ErrUnknown) {
		t.Errorf("again: got error %v, want ErrUnknown", err)
	}
	if _, err := b.RemoveDevice(t.Context(), "none", "pixel"); !errors.Is(err, accounts.ErrUnknown) {
		t.Errorf("an unknown account: got error %v, want ErrUnknown", err)
	}
	if left := b.mustFind(t, "shop").Devices; len(left) != 1 || left[0].Name != "nexus" {
		t.Errorf("got logins %v, want that of nexus", left)
	}
	if left := b.mustDevices(t, "shop"); len(left) != 1 || left[0].Name != "nexus" {
		t.Errorf("got phones %v, want nexus", left)
	}
	// Its login is free again.
	b.mustAdd(t, "other", "pixel")
	if _, err := b.AddDevice(t.Context(), "other", "nexus", password); !errors.Is(err, accounts.ErrTaken) {
		t.Errorf("a login in use: got error %v, want ErrTaken", err)
	}
}

func TestRegionAndValidity(t *testing.T) {
	b := setup(t)
	plan := accounts.DefaultPlan()
	plan.Validity = streams.MaxValidity
	want := b.mustCreate(t, accounts.Spec{Name: "shop", Plan: plan, Region: "de"}).Account
	if want.Region != "DE" || want.Plan.Validity != 168*time.Hour {
		t.Errorf("got region %q and validity %v", want.Region, want.Plan.Validity)
	}
	for _, change := range []accounts.Change{
		{Region: new("EN")}, {Region: new("DEU")}, {Region: new("001")},
		{Validity: new(time.Millisecond)}, {Validity: new(-time.Hour)}, {Validity: new(streams.MaxValidity + 1)},
	} {
		if _, err := b.Set(t.Context(), "shop", change); err == nil {
			t.Errorf("%+v: got no error", change)
		}
	}
	if diff := cmp.Diff(want, b.mustFind(t, "shop")); diff != "" {
		t.Errorf("after refusals (-want +got):\n%s", diff)
	}
	if _, err := b.Set(t.Context(), "shop", accounts.Change{Region: new("Ro"), Validity: new(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	want.Region, want.Plan.Validity = "RO", time.Hour
	if diff := cmp.Diff(want, b.mustFind(t, "shop")); diff != "" {
		t.Errorf("after a change (-want +got):\n%s", diff)
	}
	if _, err := b.Set(t.Context(), "shop", accounts.Change{Region: new(""), Validity: new(time.Duration(0))}); err != nil {
		t.Fatal(err)
	}
	want.Region, want.Plan.Validity = "", 0
	if diff := cmp.Diff(want, b.mustFind(t, "shop")); diff != "" {
		t.Errorf("after both were unset (-want +got):\n%s", diff)
	}
	if _, err := b.Create(t.Context(), accounts.Spec{Name: "other", Plan: accounts.DefaultPlan(), Region: "XX"}); err == nil {
		t.Error("create with an unknown region: got no error")
	}
}
