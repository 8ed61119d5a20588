package ingress_test

import (
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/testkit/httpgolden"
	"github.com/trunkline-sms/trunkline/streams"
)

// Every file speaks for a fresh account of its own.
func TestGolden(t *testing.T) {
	f := start(t, options{})
	values := map[string]string{
		"suspended":    f.Token("suspended", func(a *streams.Account) { a.Suspended = true }),
		"unsubscribed": f.Token("unsubscribed", func(a *streams.Account) { a.Subscription.None = true }),
		"limited":      f.Token("limited", func(a *streams.Account) { a.Plan.Limit = 1000 }),
		"rated":        f.Token("rated", func(a *streams.Account) { a.Plan.Rate = 2 }),
	}
	f.Quota.Use(streams.AccountIDOf("limited"), 1000)
	token := func(account string) string { return f.Token(account, nil) }
	httpgolden.ReplayEach(t, f.Client, f.URL, "api/*/testdata/*.http", token, values)
}
