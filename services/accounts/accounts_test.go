package accounts_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type bench struct {
	*accounts.Accounts
	bus *bus.Bus
	now time.Time
}

func setup(t *testing.T) *bench {
	t.Helper()
	b := &bench{bus: bustest.New(t), now: start}
	d := streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 1 << 20, StatusMaxBytes: 1 << 20}
	if err := streams.Ensure(t.Context(), b.bus.JS, d, true); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.Accounts, err = accounts.Open(t.Context(), b.bus, func() time.Time { return b.now }); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) mustCreate(t *testing.T, spec accounts.Spec) accounts.Created {
	t.Helper()
	if spec.Plan == (streams.Plan{}) {
		spec.Plan = accounts.DefaultPlan()
	}
	created, err := b.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func (b *bench) mustFind(t *testing.T, name string) streams.Account {
	t.Helper()
	account, err := b.Find(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return account
}

func TestCreate(t *testing.T) {
	b := setup(t)
	created := b.mustCreate(t, accounts.Spec{Name: "shop"})

	if token := created.Token.Reveal(); !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(token) {
		t.Errorf("got a token of %d characters, want 64 of lower-case hex", len(token))
	}
	want := streams.Account{
		ID: streams.AccountIDOf("shop"), Name: "shop", Created: start, Plan: accounts.DefaultPlan(),
		Tokens: []streams.Token{{Hash: streams.HashToken(created.Token.Reveal()), Created: start}},
	}
	if diff := cmp.Diff(want, b.mustFind(t, "shop")); diff != "" {
		t.Errorf("stored account (-want +got):\n%s", diff)
	}
}

func TestCreateTaken(t *testing.T) {
	b := setup(t)
	first := b.mustCreate(t, accounts.Spec{Name: "shop", Login: "ann", Password: "correct horse"})

	for name, spec := range map[string]accounts.Spec{
		"name":         {Name: "shop"},
		"login":        {Name: "other", Login: "ann", Password: "battery staple"},
		"name's login": {Name: "shop", Login: "bob", Password: "battery staple"},
	} {
		spec.Plan = accounts.DefaultPlan()
		if _, err := b.Create(t.Context(), spec); !errors.Is(err, accounts.ErrTaken) {
			t.Errorf("%s: got error %v, want ErrTaken", name, err)
		}
	}
	if diff := cmp.Diff(first.Account, b.mustFind(t, "shop")); diff != "" {
		t.Errorf("account after the refusals (-want +got):\n%s", diff)
	}
	// What was refused has left no login behind.
	b.mustCreate(t, accounts.Spec{Name: "bobs", Login: "bob", Password: "battery staple"})
	if _, err := b.Find(t.Context(), "other"); !errors.Is(err, accounts.ErrUnknown) {
		t.Errorf("find other: got error %v, want ErrUnknown", err)
	}
}

// A name is taken once, however many want it at the same time, and the one that
// got it keeps its login.
func TestCreateAtOnce(t *testing.T) {
	b := setup(t)
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
		made []accounts.Created
	)
	for range 3 { // each hashes a password, which takes its time
		wait.Go(func() {
			created, err := b.Create(t.Context(), accounts.Spec{Name: "shop", Plan: accounts.DefaultPlan(), Login: "ann", Password: "correct horse"})
			if err != nil {
				if !errors.Is(err, accounts.ErrTaken) {
					t.Errorf("got error %v, want ErrTaken", err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			made = append(made, created)
		})
	}
	wait.Wait()
	if len(made) != 1 {
		t.Fatalf("got %d accounts of one name, want 1", len(made))
	}
	if _, err := b.Create(t.Context(), accounts.Spec{Name: "other", Plan: accounts.DefaultPlan(), Login: "ann", Password: "battery staple"}); !errors.Is(err, accounts.ErrTaken) {
		t.Errorf("second use of the login: got error %v, want ErrTaken", err)
	}
}

func TestCreateRefuses(t *testing.T) {
	b := setup(t)
	good := accounts.DefaultPlan()
	with := func(f func(*streams.Plan)) streams.Plan { p := good; f(&p); return p }
	for want, spec := range map[string]accounts.Spec{
		`account name ""`:                           {Plan: good},
		`account name "a b"`:                        {Name: "a b", Plan: good},
		"account name \"" + strings.Repeat("a", 65): {Name: strings.Repeat("a", 65), Plan: good},
		"limit: want 0":                             {Name: "a", Plan: with(func(p *streams.Plan) { p.Limit = -1 })},
		"rate: want 0":                              {Name: "a", Plan: with(func(p *streams.Plan) { p.Rate = -1 })},
		"lease: want 1s to 24h":                     {Name: "a", Plan: with(func(p *streams.Plan) { p.Lease = 25 * time.Hour })},
		"attempts: want 1 to":                       {Name: "a", Plan: with(func(p *streams.Plan) { p.Attempts = 0 })},
		"after-lapse: want":                         {Name: "a", Plan: with(func(p *streams.Plan) { p.AfterLapse = "again" })},
		"a login needs a password":                  {Name: "a", Plan: good, Login: "ann"},
		"a password needs a login":                  {Name: "a", Plan: good, Password: "correct horse"},
		"password: want 8":                          {Name: "a", Plan: good, Login: "ann", Password: "1234567"},
		"password: want at most 72":                 {Name: "a", Plan: good, Login: "ann", Password: "1234567890123456789012345678901234567890123456789012345678901234567890123"},
		"login: want 1 to 64":                       {Name: "a", Plan: good, Login: "ann\n", Password: "correct horse"},
	} {
		_, err := b.Create(t.Context(), spec)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
		if err != nil && spec.Password != "" && strings.Contains(err.Error(), spec.Password.Reveal()) {
			t.Errorf("%s: the error holds the password", want)
		}
	}
	if all, err := b.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("got accounts %v and error %v, want none", all, err)
	}
}

func TestList(t *testing.T) {
	b := setup(t)
	b.mustCreate(t, accounts.Spec{Name: "d", Login: "ann", Password: "correct horse"})
	for _, name := range []string{"c", "a", "b"} {
		b.mustCreate(t, accounts.Spec{Name: name})
	}
	all, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, account := range all {
		got = append(got, account.Name)
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d"}, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestRotate(t *testing.T) {
	b := setup(t)
	first := b.mustCreate(t, accounts.Spec{Name: "shop"})
	hash := func(token fmt.Stringer) streams.TokenHash {
		return streams.HashToken(token.(interface{ Reveal() string }).Reveal())
	}

	b.now = start.Add(time.Hour)
	second, _, err := b.Rotate(t.Context(), "shop", 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	want := []streams.Token{
		{Hash: hash(first.Token), Created: start, Expires: start.Add(25 * time.Hour)},
		{Hash: hash(second), Created: start.Add(time.Hour)},
	}
	if diff := cmp.Diff(want, b.mustFind(t, "shop").Tokens); diff != "" {
		t.Errorf("after a rotation with grace (-want +got):\n%s", diff)
	}

	// A longer grace later does not make the first one last longer.
	b.now = start.Add(2 * time.Hour)
	third, _, err := b.Rotate(t.Context(), "shop", 240*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	want = []streams.Token{
		{Hash: hash(first.Token), Created: start, Expires: start.Add(25 * time.Hour)},
		{Hash: hash(second), Created: start.Add(time.Hour), Expires: start.Add(242 * time.Hour)},
		{Hash: hash(third), Created: start.Add(2 * time.Hour)},
	}
	if diff := cmp.Diff(want, b.mustFind(t, "shop").Tokens); diff != "" {
		t.Errorf("after a second rotation (-want +got):\n%s", diff)
	}

	fourth, _, err := b.Rotate(t.Context(), "shop", 0)
	if err != nil {
		t.Fatal(err)
	}
	want = []streams.Token{{Hash: hash(fourth), Created: start.Add(2 * time.Hour)}}
	if diff := cmp.Diff(want, b.mustFind(t, "shop").Tokens); diff != "" {
		t.Errorf("after a rotation at once (-want +got):\n%s", diff)
	}
}

// Changes that meet are all kept: each is made on what the one before stored.
func TestRotateAtOnce(t *testing.T) {
	b := setup(t)
	b.mustCreate(t, accounts.Spec{Name: "shop"})
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if _, _, err := b.Rotate(t.Context(), "shop", time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if got, want := len(b.mustFind(t, "shop").Tokens), 9; got != want {
		t.Errorf("got %d tokens, want %d", got, want)
	}
}

func TestSuspend(t *testing.T) {
	b := setup(t)
	b.mustCreate(t, accounts.Spec{Name: "shop"})
	before := uint64(0)
	for _, suspended := range []bool{true, true, false} {
		revision, err := b.Suspend(t.Context(), "shop", suspended)
		if err != nil {
			t.Fatal(err)
		}
		if revision <= before {
			t.Errorf("got revision %d after %d, want a later one", revision, before)
		}
		before = revision
		if got := b.mustFind(t, "shop").Suspended; got != suspended {
			t.Errorf("got suspended %v, want %v", got, suspended)
		}
	}
	if _, err := b.Suspend(t.Context(), "none", true); !errors.Is(err, accounts.ErrUnknown) {
		t.Errorf("unknown account: got error %v, want ErrUnknown", err)
	}
}

func TestAwaitSeenNamesTheSilent(t *testing.T) {
	b := setup(t)
	if missing, err := b.AwaitSeen(t.Context(), 1); err != nil || len(missing) != 0 {
		t.Errorf("without an ingress: got missing %v and error %v, want none", missing, err)
	}
	claims, err := b.bus.JS.KeyValue(t.Context(), streams.ClaimsBucket)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{streams.QuotaClaim, streams.IngressClaim(3), streams.IngressClaim(7)} {
		mustPut(t, claims, key)
	}
	serve(t, b.bus, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	missing, err := b.AwaitSeen(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{7}, missing); diff != "" {
		t.Errorf("silent ingresses (-want +got):\n%s", diff)
	}
}

func mustPut(t *testing.T, kv jetstream.KeyValue, key string) {
	t.Helper()
	if _, err := kv.PutString(t.Context(), key, "held"); err != nil {
		t.Fatal(err)
	}
}

// serve answers as an ingress does that has seen every change.
func serve(t *testing.T, b *bus.Bus, instance int) {
	t.Helper()
	_, err := b.Conn.Subscribe(request.IngressSeen(instance), func(m *nats.Msg) { _ = m.Respond([]byte("{}")) })
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Conn.Flush(); err != nil {
		t.Fatal(err)
	}
}
