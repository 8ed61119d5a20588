package accounts

import (
	"context"
	"fmt"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/streams"
)

// Change says what becomes of an account; what is nil stays as it is.
type Change struct {
	Limit        *int64
	Rate         *int
	Lease        *time.Duration
	Attempts     *int
	AfterLapse   *streams.LapsePolicy
	Validity     *time.Duration // 0: the default
	Region       *string        // empty: none
	Subscription *streams.Subscription
	Login        *string // needs a password, unless the account goes by it already
	Password     *secret.String
}

// Set changes an account and gives the bucket's revision. Nothing is changed
// where a part of the change is not allowed.
func (a *Accounts) Set(ctx context.Context, name string, c Change) (uint64, error) {
	id := streams.AccountIDOf(name)
	before, err := a.Find(ctx, name)
	if err != nil {
		return 0, err
	}
	var region string
	if c.Region != nil {
		if region, err = parseRegion(*c.Region); err != nil {
			return 0, err
		}
	}
	login, hash := before.Login, ""
	if c.Login != nil {
		login = *c.Login
	}
	if c.Password != nil || login != before.Login {
		var password secret.String
		if c.Password != nil {
			password = *c.Password
		}
		if hash, err = hashLogin(login, password); err != nil {
			return 0, err
		}
		if err := a.takeLogin(ctx, login, id); err != nil {
			return 0, err
		}
	}
	replaced := ""
	revision, err := a.change(ctx, name, func(account *streams.Account) error {
		c.plan(&account.Plan)
		if c.Region != nil {
			account.Region = region
		}
		if c.Subscription != nil {
			account.Subscription = *c.Subscription
		}
		if hash != "" {
			if hasDevice(*account, login) {
				return fmt.Errorf("login %q %w: a phone of the account goes by it", login, ErrTaken)
			}
			replaced = account.Login
			account.Login, account.Password = login, hash
		}
		return validPlan(account.Plan)
	})
	if err != nil {
		_ = a.dropLogin(ctx, login, id) // the first error says more
		return 0, err
	}
	return revision, a.dropLogin(ctx, replaced, id)
}

func (c Change) plan(p *streams.Plan) {
	set(&p.Limit, c.Limit)
	set(&p.Rate, c.Rate)
	set(&p.Lease, c.Lease)
	set(&p.Attempts, c.Attempts)
	set(&p.AfterLapse, c.AfterLapse)
	set(&p.Validity, c.Validity)
}

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}
