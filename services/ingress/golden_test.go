package ingress_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/testkit/httpgolden"
	"github.com/trunkline-sms/trunkline/streams"
)

// Every file speaks for a fresh account of its own.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("api/*/testdata/*.http")
	if err != nil || len(files) == 0 {
		t.Fatalf("golden files: got %d, %v", len(files), err)
	}
	f := start(t, options{})
	values := map[string]string{
		"suspended":    f.Token("suspended", func(a *streams.Account) { a.Suspended = true }),
		"unsubscribed": f.Token("unsubscribed", func(a *streams.Account) { a.Subscription.None = true }),
		"limited":      f.Token("limited", func(a *streams.Account) { a.Plan.Limit = 1000 }),
		"rated":        f.Token("rated", func(a *streams.Account) { a.Plan.Rate = 2 }),
	}
	f.Quota.Use(streams.AccountIDOf("limited"), 1000)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".http")
		t.Run(name, func(t *testing.T) {
			own := map[string]string{"token": f.Token(name, nil)}
			names, err := httpgolden.Variables(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				if own[name] == "" {
					own[name] = values[name]
				}
			}
			httpgolden.Replay(t, f.Client, f.URL, file, own)
		})
	}
}
