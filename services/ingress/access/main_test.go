package access

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var account = &streams.Account{ID: streams.AccountIDOf("acme"), Name: "acme"}

var deployment = streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}

// newAccess runs an Access on a real engine, and returns once it has read the accounts.
func newAccess(t testing.TB) *Access {
	t.Helper()
	b := bustest.New(t)
	if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
		t.Fatal(err)
	}
	return newAccessOn(t, b)
}

// newAccessOn runs an Access of another ingress beside others on their engine.
func newAccessOn(t testing.TB, b *bus.Bus) *Access {
	t.Helper()
	a := New(Options{Bus: b, Log: zap.NewNop(), Now: time.Now})
	bustest.Run(t, a.Run)
	<-a.accounts.loaded
	<-a.sessions.loaded
	return a
}

// putAccount stores an account, and returns once c acts on it.
func putAccount(t testing.TB, c *Access, account streams.Account) {
	t.Helper()
	bucket, err := c.bus.JS.KeyValue(t.Context(), streams.AccountsBucket)
	if err != nil {
		t.Fatal(err)
	}
	value, err := json.Marshal(account)
	if err != nil {
		t.Fatal(err)
	}
	revision, err := bucket.Put(t.Context(), streams.AccountKey(account.ID), value)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.accounts.wait(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
}

func hashed(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

// shopLogin is an account with a login, and a phone with one of its own.
func shopLogin(t testing.TB) streams.Account {
	id := streams.AccountIDOf("shop")
	return streams.Account{
		ID: id, Name: "shop", Login: "shop", Password: hashed(t, "correct horse"),
		Devices: []streams.Login{{Device: streams.DeviceIDOf(id, "Pixel"), Name: "Pixel", Password: hashed(t, "battery staple")}},
	}
}

// home is where the owner of a login is.
var home = netip.MustParsePrefix("192.0.2.7/32")

func admitted(t *testing.T, c *Access, name string, password secret.String) Caller {
	t.Helper()
	caller, _, err := c.AdmitLogin(t.Context(), Credentials{Name: name, Password: password, From: home}, Posting)
	if err != nil {
		t.Fatal(err)
	}
	return caller
}
