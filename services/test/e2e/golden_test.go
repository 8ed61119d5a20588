package e2e

import (
	"net/http"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/testkit/httpgolden"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
)

// The wire is the same whatever stands behind ingress. Every file speaks for an account of its own.
func TestGolden(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) {
		s := launch(t, newHost, shards)
		token := func(account string) string { return s.account(account, nil) }
		httpgolden.ReplayEach(t, s.client, s.url, "../../ingress/api/*/testdata/*.http", token, goldenAccounts(s))
	})
}

// goldenAccounts makes the accounts that the files need beside their own, and gives their tokens.
func goldenAccounts(s *trunkline) map[string]string {
	s.Helper()
	tokens := map[string]string{
		"suspended":    s.account("suspended", nil),
		"unsubscribed": s.account("unsubscribed", nil),
		"limited":      s.account("limited", func(p *streams.Plan) { p.Limit = 1000 }),
		"rated":        s.account("rated", func(p *streams.Plan) { p.Rate = 2 }),
	}
	all := make([]sms, 1000)
	for i := range all {
		all[i] = sms{number(i), text("limited", i)}
	}
	if got, err := s.api(tokens["limited"]).post("", all...); err != nil || got.status != http.StatusOK {
		s.Fatalf("use up the limit: got %d, %v", got.status, err)
	}
	s.withAccounts(func(book *accounts.Accounts) (uint64, error) {
		if _, err := book.Suspend(s.Context(), "suspended", true); err != nil {
			return 0, err
		}
		return book.Set(s.Context(), "unsubscribed", accounts.Change{Subscription: &streams.Subscription{None: true}})
	})
	return tokens
}
