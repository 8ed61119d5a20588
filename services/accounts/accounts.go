// Package accounts keeps the accounts of a deployment: it makes them, changes
// them and finds them in the accounts bucket.
package accounts

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/streams"
)

// What goes wrong with a name.
var (
	ErrTaken   = errors.New("is taken")
	ErrUnknown = errors.New("is not known")
)

// Accounts is the accounts bucket of a deployment. It is safe for concurrent
// use, also from several processes.
type Accounts struct {
	bus *bus.Bus
	kv  jetstream.KeyValue
	now func() time.Time
}

// Open opens the accounts of the deployment that b reaches.
func Open(ctx context.Context, b *bus.Bus, now func() time.Time) (*Accounts, error) {
	kv, err := b.JS.KeyValue(ctx, streams.AccountsBucket)
	if err != nil {
		return nil, fmt.Errorf("open accounts: %w", err)
	}
	return &Accounts{bus: b, kv: kv, now: now}, nil
}

// Spec is what a new account is made of.
type Spec struct {
	Name     string
	Plan     streams.Plan
	Login    string        // empty: the account has only tokens
	Password secret.String // of the login
	Region   string        // of numbers without a country, as in DE; empty: none
}

// DefaultPlan is the plan of an account that nobody gave another.
func DefaultPlan() streams.Plan {
	return streams.Plan{Rate: streams.DefaultRate, Lease: streams.DefaultLease, Attempts: streams.DefaultAttempts}
}

// Created is a new account with its token, which is stored nowhere.
type Created struct {
	Account  streams.Account
	Token    secret.String
	Revision uint64 // of the accounts bucket
}

// Create makes an account and its first token. The error is ErrTaken where the
// name or the login belongs to another.
func (a *Accounts) Create(ctx context.Context, spec Spec) (Created, error) {
	if err := validName(spec.Name); err != nil {
		return Created{}, err
	}
	if err := validPlan(spec.Plan); err != nil {
		return Created{}, err
	}
	region, err := parseRegion(spec.Region)
	if err != nil {
		return Created{}, err
	}
	token := newToken()
	now := a.now().UTC()
	account := streams.Account{
		ID:      streams.AccountIDOf(spec.Name),
		Name:    spec.Name,
		Created: now,
		Plan:    spec.Plan,
		Tokens:  []streams.Token{{Hash: streams.HashToken(token.Reveal()), Created: now}},
		Region:  region,
	}
	if spec.Login != "" || spec.Password != "" {
		hash, err := hashLogin(spec.Login, spec.Password)
		if err != nil {
			return Created{}, err
		}
		account.Login, account.Password = spec.Login, hash
	}
	if err := a.takeLogin(ctx, account.Login, account.ID); err != nil {
		return Created{}, err
	}
	value, err := json.Marshal(account) //nolint:gosec // the password in it is a hash
	if err != nil {
		return Created{}, fmt.Errorf("encode account: %w", err)
	}
	revision, err := a.kv.Create(ctx, streams.AccountKey(account.ID), value)
	if err != nil {
		err = errors.Join(err, a.dropLogin(ctx, account.Login, account.ID))
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return Created{}, fmt.Errorf("account %q %w: choose another name, or see `trunkline account show %s`", spec.Name, ErrTaken, spec.Name)
	}
	if err != nil {
		return Created{}, fmt.Errorf("store account %q: %w", spec.Name, err)
	}
	return Created{Account: account, Token: token, Revision: revision}, nil
}

// Find gives the account of that name. The error is ErrUnknown where there is
// none.
func (a *Accounts) Find(ctx context.Context, name string) (streams.Account, error) {
	account, _, err := a.get(ctx, streams.AccountIDOf(name))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return account, unknown(name)
	}
	return account, err
}

// NameOf gives the name of the account with that id, or the id itself where
// there is no such account any more.
func (a *Accounts) NameOf(ctx context.Context, id streams.AccountID) (string, error) {
	account, _, err := a.get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return id.String(), nil
	}
	return account.Name, err
}

// List gives all accounts, ordered by name.
func (a *Accounts) List(ctx context.Context) ([]streams.Account, error) {
	all, err := values[streams.Account](ctx, a.kv, "account.*")
	if err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	slices.SortFunc(all, func(x, y streams.Account) int { return cmp.Compare(x.Name, y.Name) })
	return all, nil
}

// Devices gives the phones that an account has, ordered by name.
func (a *Accounts) Devices(ctx context.Context, id streams.AccountID) ([]streams.Device, error) {
	kv, err := a.bus.JS.KeyValue(ctx, streams.DevicesBucket)
	if err != nil {
		return nil, fmt.Errorf("open devices: %w", err)
	}
	all, err := values[streams.Device](ctx, kv, streams.DeviceKeys(id))
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	slices.SortFunc(all, func(x, y streams.Device) int { return cmp.Compare(x.Name, y.Name) })
	return all, nil
}

// change reads an account, lets f change it and stores it, again from the start
// when another change came between. It gives the bucket's new revision.
func (a *Accounts) change(ctx context.Context, name string, f func(*streams.Account) error) (uint64, error) {
	for {
		account, revision, err := a.get(ctx, streams.AccountIDOf(name))
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return 0, unknown(name)
		}
		if err != nil {
			return 0, err
		}
		if err := f(&account); err != nil {
			return 0, err
		}
		value, err := json.Marshal(account) //nolint:gosec // the password in it is a hash
		if err != nil {
			return 0, fmt.Errorf("encode account: %w", err)
		}
		revision, err = a.kv.Update(ctx, streams.AccountKey(account.ID), value, revision)
		if bus.IsConflict(err) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("store account %q: %w", name, err)
		}
		return revision, nil
	}
}

// Suspend rejects all requests of the account, or with false accepts them again. It
// gives the bucket's revision.
func (a *Accounts) Suspend(ctx context.Context, name string, suspended bool) (uint64, error) {
	return a.change(ctx, name, func(account *streams.Account) error {
		account.Suspended = suspended
		return nil
	})
}

func (a *Accounts) get(ctx context.Context, id streams.AccountID) (streams.Account, uint64, error) {
	entry, err := a.kv.Get(ctx, streams.AccountKey(id))
	if err != nil {
		return streams.Account{}, 0, fmt.Errorf("read account: %w", err)
	}
	account, err := decode[streams.Account](entry)
	return account, entry.Revision(), err
}

func unknown(name string) error {
	return fmt.Errorf("account %q %w: see `trunkline account list`", name, ErrUnknown)
}

// Limit: the name of an account has 1 to 64 of A-Z a-z 0-9 _ . - only. Beyond it: the command fails.
// Used up by: the operator. Hurts: nobody else. Test: TestCreateRefuses.
var names = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

func validName(name string) error {
	if !names.MatchString(name) {
		return fmt.Errorf("account name %q: want 1 to 64 of A-Z a-z 0-9 _ . -", name)
	}
	return nil
}

// Bounds of a plan, so that a typing error does not become a lease of a year.
const (
	minLease = time.Second
	// Limit: a lease is 1 s to 24 h. Beyond it: the command fails.
	// Used up by: the operator. Hurts: nobody else. Test: TestCreateRefuses.
	maxLease = 24 * time.Hour
	// Limit: a plan has 1 to 100 attempts. Beyond it: the command fails.
	// Used up by: the operator. Hurts: nobody else. Test: TestCreateRefuses.
	maxAttempts = 100
	// Limit: a plan's --validity is 1 s to 168 h. Beyond it: the command fails.
	// Used up by: the operator. Hurts: nobody else. Test: TestRegionAndValidity.
	minValidity = time.Second
)

func validPlan(p streams.Plan) error {
	switch {
	case p.Limit < 0:
		return errors.New("limit: want 0 (none) or more messages a month")
	case p.Rate < 0:
		return errors.New("rate: want 0 (none) or more requests a minute")
	case p.Lease < minLease || p.Lease > maxLease:
		return fmt.Errorf("lease: want %v to %v, as in 10m", minLease, maxLease)
	case p.Attempts < 1 || p.Attempts > maxAttempts:
		return fmt.Errorf("attempts: want 1 to %d", maxAttempts)
	case p.Validity != 0 && p.Validity < minValidity || p.Validity > streams.MaxValidity:
		return fmt.Errorf("validity: want %v to %v, as in 72h, or 0 for the default", minValidity, streams.MaxValidity)
	}
	switch p.AfterLapse {
	case "", streams.Retry, streams.Hold, streams.Fail:
		return nil
	}
	return errors.New("after-lapse: want retry, hold, fail or default")
}
