package access

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
)

// accounts is the accounts bucket in memory. Accounts are found by the hashes of their tokens: comparing hashes leaks nothing
// about tokens.
type accounts struct {
	followed
	log *zap.Logger

	mu       sync.RWMutex
	accounts map[string]*streams.Account // by key in the bucket
	tokens   map[streams.TokenHash]owner
	logins   map[string]login
	seen     uint64        // revision
	moved    chan struct{} // closed when seen rises
}

type owner struct {
	account *streams.Account
	expires time.Time
}

func newAccounts(log *zap.Logger) *accounts {
	return &accounts{
		followed: newFollowed(),
		log:      log,
		accounts: map[string]*streams.Account{},
		tokens:   map[streams.TokenHash]owner{},
		logins:   map[string]login{},
		moved:    make(chan struct{}),
	}
}

// find gives the account of a token that is valid at now, or nil.
func (a *accounts) find(token string, now time.Time) (streams.TokenHash, *streams.Account) {
	hash := streams.HashToken(token)
	a.mu.RLock()
	owner, ok := a.tokens[hash]
	a.mu.RUnlock()
	if !ok || !owner.expires.IsZero() && !now.Before(owner.expires) {
		return hash, nil
	}
	return hash, owner.account
}

// login looks a login up.
func (a *accounts) login(name string) (login, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	one, ok := a.logins[name]
	return one, ok
}

// wait returns once the bucket has been read as of a revision.
func (a *accounts) wait(ctx context.Context, revision uint64) error {
	for {
		a.mu.RLock()
		seen, moved := a.seen, a.moved
		a.mu.RUnlock()
		if seen >= revision {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "not_seen", "This revision of the accounts has not been seen").With(ctx.Err())
		}
	}
}

// follow reads the bucket and keeps up with it until ctx is done. It follows all keys, those of logins too: a caller of
// wait may wait for the revision of a login.
func (a *accounts) follow(ctx context.Context, b *bus.Bus) error {
	return a.followed.follow(ctx, b, streams.AccountsBucket, a.log, func() {}, a.apply)
}

// readAccount reads a record. It fails if the record names another account than its key does: its tokens would give away
// the messages of the other account.
func readAccount(key string, value []byte) (*streams.Account, error) {
	account := new(streams.Account)
	if err := json.Unmarshal(value, account); err != nil {
		return nil, err
	}
	if key != streams.AccountKey(account.ID) {
		return nil, fmt.Errorf("it is of account %s", account.ID)
	}
	return account, nil
}

func (a *accounts) apply(entry jetstream.KeyValueEntry) {
	var account *streams.Account
	isAccount := strings.HasPrefix(entry.Key(), "account.")
	if isAccount && entry.Operation() == jetstream.KeyValuePut {
		var err error
		if account, err = readAccount(entry.Key(), entry.Value()); err != nil {
			// The account's tokens stop working. That is better than going by an old record: it may be suspended by now.
			a.log.Error("account unreadable", zap.String("key", entry.Key()), zap.Error(err))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if isAccount {
		a.replace(entry.Key(), account)
	}
	if entry.Revision() > a.seen {
		a.seen = entry.Revision()
		close(a.moved)
		a.moved = make(chan struct{})
	}
}

func (a *accounts) replace(key string, account *streams.Account) {
	if old := a.accounts[key]; old != nil {
		for _, token := range old.Tokens {
			if a.tokens[token.Hash].account == old {
				delete(a.tokens, token.Hash)
			}
		}
		for _, name := range loginsOf(old) {
			if a.logins[name].account == old {
				delete(a.logins, name)
			}
		}
	}
	if account == nil {
		delete(a.accounts, key)
		return
	}
	a.accounts[key] = account
	for _, token := range account.Tokens {
		a.tokens[token.Hash] = owner{account, token.Expires}
	}
	if account.Login != "" {
		a.logins[account.Login] = login{account: account, hash: account.Password}
	}
	for _, d := range account.Devices {
		a.logins[d.Name] = login{account: account, hash: d.Password, device: d.Device}
	}
}

func loginsOf(account *streams.Account) []string {
	names := []string{account.Login}
	for _, d := range account.Devices {
		names = append(names, d.Name)
	}
	return names
}
