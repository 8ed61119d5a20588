package e2e

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
)

// A token works as a bearer as it does in the path.
func TestAccess_Bearer(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) {
		s := launch(t, newHost, shards)
		a := s.api("")
		a.base = s.url + "/api"
		bearer := []string{"Authorization", "Bearer " + s.token}
		got, err := a.do(http.MethodPost, "/queue", `[{"phone":"`+number(1)+`","message":"`+text("shop", 1)+`"}]`, bearer...)
		if err != nil || got.status != http.StatusOK {
			t.Fatalf("queue: got %v, %v", got, err)
		}
		hash := got.queued().Items[0].Hash
		got, err = a.do(http.MethodGet, "/get_messages", "", bearer...)
		if err != nil || got.status != http.StatusOK || !strings.Contains(got.body, hash) {
			t.Errorf("get_messages: got %v, %v", got, err)
		}
		got, err = a.do(http.MethodPost, "/status", `{"messages":[{"hash":"`+hash+`","status":2}]}`, bearer...)
		if err != nil || got.status != http.StatusOK || got.body != `{"ok":true,"updated":1}` {
			t.Errorf("status: got %v, %v", got, err)
		}
		for name, header := range map[string][]string{
			"no token":       nil,
			"another scheme": {"Authorization", "Basic " + s.token},
			"another token":  {"Authorization", "Bearer " + strings.Repeat("0", 64)},
		} {
			if got, err := a.do(http.MethodGet, "/get_messages", "", header...); err != nil || got.status != http.StatusUnauthorized {
				t.Errorf("%s: got %v, %v, want 401", name, got, err)
			}
		}
	})
}

// Who calls more often than the plan allows is told so, and when to come again; others are not bothered.
func TestAccess_Rate(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) {
		s := launch(t, newHost, shards)
		const rate = 5
		token := s.account("rated", func(p *streams.Plan) { p.Rate = rate })
		a := s.api(token)
		for i := range rate {
			got, err := a.do(http.MethodGet, "/get_messages", "")
			if err != nil || got.status != http.StatusOK {
				t.Fatalf("request %d: got %v, %v", i+1, got, err)
			}
			if limit, left := got.header.Get("RateLimit-Limit"), got.header.Get("RateLimit-Remaining"); limit != strconv.Itoa(rate) || left != strconv.Itoa(rate-1-i) {
				t.Errorf("request %d: got %s of %s left", i+1, left, limit)
			}
		}
		got, err := a.do(http.MethodGet, "/get_messages", "")
		if err != nil || got.status != http.StatusTooManyRequests || got.queued().Code != "rate_limited" {
			t.Errorf("got %v, %v, want 429", got, err)
		}
		if after, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || after < 1 || after > 60/rate {
			t.Errorf("got Retry-After %q, want 1 to %d seconds", got.header.Get("Retry-After"), 60/rate)
		}
		s.api(s.token).mustPull(t, "other", 1, 0, 0)
		// The rate is of a token, and changes at once.
		s.withAccounts(func(book *accounts.Accounts) (uint64, error) {
			none := 0
			return book.Set(t.Context(), "rated", accounts.Change{Rate: &none})
		})
		a.mustPull(t, "phone", 1, 0, 0)
	})
}

// status is how a pull under a token is answered.
func (s *trunkline) status(token string) int {
	s.Helper()
	got, err := s.api(token).do(http.MethodGet, "/get_messages", "")
	if err != nil {
		s.Fatal(err)
	}
	return got.status
}

// What an operator changes holds as soon as the command has returned, and after a restart.
func TestAccess_Commands(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) {
		s := launch(t, newHost, shards)
		token := s.account("shop", nil)
		other := s.account("other", nil)
		check := func(when string, want map[string]int) {
			t.Helper()
			for token, want := range want {
				if got := s.status(token); got != want {
					t.Errorf("%s: got %d, want %d", when, got, want)
				}
			}
		}
		s.command("account", "suspend", "shop")
		check("suspended", map[string]int{token: http.StatusForbidden, other: http.StatusOK})
		s.command("account", "resume", "shop")
		check("resumed", map[string]int{token: http.StatusOK})

		second := s.rotate("shop", "1h")
		check("with grace", map[string]int{token: http.StatusOK, second: http.StatusOK})
		third := s.rotate("shop", "0s")
		gone := map[string]int{token: http.StatusUnauthorized, second: http.StatusUnauthorized, third: http.StatusOK, other: http.StatusOK}
		check("without grace", gone)
		s.command("account", "suspend", "other")
		gone[other] = http.StatusForbidden
		s.Stop()
		s.Start()
		check("after a restart", gone)
	})
}

// rotate gives an account a new token.
func (s *trunkline) rotate(name, grace string) string {
	s.Helper()
	lines := strings.Split(strings.TrimSpace(s.command("account", "token", name, "--grace", grace)), "\n")
	token := lines[len(lines)-1]
	if len(token) != 64 {
		s.Fatal("the command printed no token")
	}
	logs.secret(token)
	return token
}
