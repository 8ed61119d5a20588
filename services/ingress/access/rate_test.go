package access

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress/broadcast"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

func TestRates(t *testing.T) {
	r, start := newRates(), time.Unix(1_800_000_000, 0)
	token, other := streams.HashToken("one"), streams.HashToken("other")
	steps := []struct {
		name  string
		at    time.Duration
		token streams.TokenHash
		limit int
		want  Rate
		retry time.Duration // 0: taken
	}{
		{"first", 0, token, 3, Rate{3, 2, 20 * time.Second}, 0},
		{"second", 0, token, 3, Rate{3, 1, 40 * time.Second}, 0},
		{"third", 0, token, 3, Rate{3, 0, time.Minute}, 0},
		{"one too many", 0, token, 3, Rate{3, 0, time.Minute}, 20 * time.Second},
		{"another token", 0, other, 3, Rate{3, 2, 20 * time.Second}, 0},
		{"still too early", 15 * time.Second, token, 3, Rate{3, 0, 45 * time.Second}, 5 * time.Second},
		{"in time", 20 * time.Second, token, 3, Rate{3, 0, time.Minute}, 0},
		{"no rate", 20 * time.Second, token, 0, Rate{}, 0},
		{"rested", 80 * time.Second, token, 3, Rate{3, 2, 20 * time.Second}, 0},
		{"the clock goes back", 70 * time.Second, token, 3, Rate{3, 1, 40 * time.Second}, 0},
		{"a smaller plan", 80 * time.Second, token, 1, Rate{1, 0, time.Minute}, 0},
		{"a larger plan", 80 * time.Second, token, 60, Rate{60, 0, time.Minute}, time.Second},
	}
	for _, s := range steps {
		got, err := r.take(used{s.token, Posting}, s.limit, start.Add(s.at))
		got.Reset = got.Reset.Round(time.Millisecond)
		if diff := cmp.Diff(s.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
		if (err != nil) != (s.retry > 0) {
			t.Errorf("%s: got %v", s.name, err)
		} else if err != nil {
			if f := fault.As(err); f.Kind != fault.RateLimited || f.RetryAfter.Round(time.Millisecond) != s.retry {
				t.Errorf("%s: got %v, retry after %v, want %v", s.name, f, f.RetryAfter, s.retry)
			}
		}
	}
}

// Tokens that rest are forgotten, so that those in memory are those of the last minutes.
func TestRates_Sweep(t *testing.T) {
	r, now := newRates(), time.Unix(1_800_000_000, 0)
	for minute := range 100 {
		for i := range 100 {
			if _, err := r.take(used{streams.HashToken(fmt.Sprint(minute, i)), Posting}, 60, now); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(per)
	}
	if got := len(r.buckets); got != 100 {
		t.Errorf("got %d buckets, want 100", got)
	}
}

// A token has its rate for each thing that it is for: a phone that asked too often can still say what it has sent.
func TestAdmit_UsesApart(t *testing.T) {
	c := newAccess(t)
	a := *account
	a.Plan.Rate, a.Tokens = 3, []streams.Token{{Hash: streams.HashToken("one")}}
	a.Login, a.Password = "acme", hashed(t, "correct horse")
	putAccount(t, c, a)
	said := Credentials{Name: "acme", Password: "correct horse", From: home}
	for what, admit := range map[string]func(Use) error{
		"token": func(use Use) error { _, _, err := c.Admit("one", use); return err },
		"login": func(use Use) error { _, _, err := c.AdmitLogin(t.Context(), said, use); return err },
	} {
		for _, use := range []Use{Pulling, Posting, Reporting} {
			for range 3 {
				if err := admit(use); err != nil {
					t.Errorf("%s, use %d: got %v within its rate", what, use, err)
				}
			}
			if err := admit(use); !fault.Is(err, fault.RateLimited) {
				t.Errorf("%s, use %d: got %v beyond its rate", what, use, err)
			}
		}
	}
}

// What others let through counts for what it was for.
func TestRates_TookApart(t *testing.T) {
	here, there, now := newRates(), newRates(), time.Unix(1_800_000_000, 0)
	token := streams.HashToken("one")
	for range 5 {
		if _, err := there.take(used{token, Pulling}, 5, now); err != nil {
			t.Fatal(err)
		}
	}
	for _, one := range there.news() {
		here.deduct(one, now)
	}
	if _, err := here.take(used{token, Pulling}, 5, now); !fault.Is(err, fault.RateLimited) {
		t.Errorf("a pull beyond the rate: got %v", err)
	}
	if _, err := here.take(used{token, Reporting}, 5, now); err != nil {
		t.Errorf("a report: got %v", err)
	}
}

// What a token uses at one ingress is taken off at the others within a second.
func TestRates_Shared(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
			t.Fatal(err)
		}
		one, other := newAccessOn(t, b), newAccessOn(t, b)
		a := *account
		a.Plan.Rate, a.Tokens = 60, []streams.Token{{Hash: streams.HashToken("one")}}
		put(t, one, streams.AccountKey(a.ID), a)
		put(t, other, streams.AccountKey(a.ID), a)
		for range 30 {
			if _, _, err := one.Admit("one", Posting); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(broadcast.Every + 100*time.Millisecond)
		if _, rate, err := other.Admit("one", Posting); err != nil || rate.Remaining < 29 || rate.Remaining > 31 {
			t.Errorf("got %+v, %v, want about half left", rate, err)
		}
	})
}

// What another ingress tells of a rate counts only if it makes sense.
func TestRates_Took(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	token := streams.HashToken("one")
	for name, one := range map[string]request.Use{
		"no rate": {Token: token, Kind: Posting, Count: 1}, "nothing used": {Token: token, Kind: Posting, Rate: 60},
		"no use": {Token: token, Kind: Posting - 1, Rate: 60, Count: 1}, "no such use": {Token: token, Kind: Reporting + 1, Rate: 60, Count: 1},
	} {
		r := newRates()
		if r.deduct(one, now); len(r.buckets) != 0 {
			t.Errorf("%s: counted", name)
		}
	}
}
