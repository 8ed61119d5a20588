package accounts

import (
	"context"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/crypto/bcrypt"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// Limit: a login has at most 64 printable characters, and no colon. Beyond it: the command fails.
	// Used up by: the operator. Hurts: nobody else. Test: TestCreateRefuses.
	maxLogin = 64 // characters
	// Limit: a password has at least 8 characters. Beyond it: the command fails.
	// Used up by: the operator. Hurts: nobody else. Test: TestCreateRefuses.
	minPassword = 8 // characters
	// Limit: a password has at most 72 bytes, which is all that bcrypt reads. Beyond it: the command fails.
	// Used up by: the operator. Hurts: nobody else. Test: TestCreateRefuses.
	maxPassword = 72 // bytes, all that bcrypt reads
)

// hashLogin checks a login with its password and gives the password's hash.
func hashLogin(login string, password secret.String) (string, error) {
	switch {
	case login == "":
		return "", errors.New("a password needs a login: give --login too")
	case password == "":
		return "", errors.New("a login needs a password: give --password too, or --password - to type it")
	case !validLogin(login):
		return "", fmt.Errorf("login: want 1 to %d printable characters, without a colon", maxLogin)
	case utf8.RuneCountInString(password.Reveal()) < minPassword:
		return "", fmt.Errorf("password: want %d characters or more", minPassword)
	case len(password) > maxPassword:
		return "", fmt.Errorf("password: want at most %d bytes", maxPassword)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password.Reveal()), bcrypt.DefaultCost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return string(hash), nil
}

func validLogin(login string) bool {
	if !utf8.ValidString(login) || utf8.RuneCountInString(login) > maxLogin {
		return false
	}
	for _, r := range login {
		// Basic authentication ends the login at its first colon.
		if !unicode.IsPrint(r) || r == ':' {
			return false
		}
	}
	return true
}

// takeLogin takes a login for an account, before the account names it. One
// that the account has taken already, such as in a try that broke off, is its.
func (a *Accounts) takeLogin(ctx context.Context, login string, id streams.AccountID) error {
	if login == "" {
		return nil
	}
	_, err := a.kv.Create(ctx, streams.LoginKey(login), []byte(id.String()))
	if !errors.Is(err, jetstream.ErrKeyExists) {
		if err != nil {
			return fmt.Errorf("take login: %w", err)
		}
		return nil
	}
	entry, err := a.kv.Get(ctx, streams.LoginKey(login))
	if err != nil {
		return fmt.Errorf("read login: %w", err)
	}
	if string(entry.Value()) != id.String() {
		return fmt.Errorf("login %q %w: choose another", login, ErrTaken)
	}
	return nil
}

// dropLogin gives a login free that the account has taken, unless the account
// as it is stored now goes by it.
func (a *Accounts) dropLogin(ctx context.Context, login string, id streams.AccountID) error {
	if login == "" {
		return nil
	}
	entry, err := a.kv.Get(ctx, streams.LoginKey(login))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read login: %w", err)
	}
	account, _, err := a.get(ctx, id)
	if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	if string(entry.Value()) != id.String() || account.Login == login || hasDevice(account, login) {
		return nil
	}
	if err := a.kv.Delete(ctx, streams.LoginKey(login), jetstream.LastRevision(entry.Revision())); err != nil && !bus.IsConflict(err) {
		return fmt.Errorf("give login free: %w", err)
	}
	return nil
}
