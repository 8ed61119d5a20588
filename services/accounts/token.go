package accounts

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/streams"
)

// Limit: a token has 32 random bytes, 64 characters in hex.
// Used up by: nobody: it is too long to guess. Hurts: nobody.
const tokenBytes = 32 // 64 characters in hex

func newToken() secret.String {
	raw := make([]byte, tokenBytes)
	_, _ = rand.Read(raw) // never fails: it ends the process instead
	return secret.String(hex.EncodeToString(raw))
}

// Rotate gives an account a new token. The ones it had end after grace, at once
// if that is 0, and never later than they would have. It also gives the
// bucket's revision.
func (a *Accounts) Rotate(ctx context.Context, name string, grace time.Duration) (secret.String, uint64, error) {
	token := newToken()
	revision, err := a.change(ctx, name, func(account *streams.Account) error {
		now := a.now().UTC()
		end := now.Add(grace)
		for i, old := range account.Tokens {
			if old.Expires.IsZero() || old.Expires.After(end) {
				account.Tokens[i].Expires = end
			}
		}
		account.Tokens = slices.DeleteFunc(account.Tokens, func(t streams.Token) bool { return !t.Expires.After(now) })
		account.Tokens = append(account.Tokens, streams.Token{Hash: streams.HashToken(token.Reveal()), Created: now})
		return nil
	})
	return token, revision, err
}
