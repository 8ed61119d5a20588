package e2e

import (
	"net/http"
	"sync"
	"testing"

	"github.com/trunkline-sms/trunkline/streams"
)

// repeated posts again what was posted under a key, which has to be answered as the first time.
func (a api) repeated(t *testing.T, key, want string, messages ...sms) {
	t.Helper()
	got, err := a.post(key, messages...)
	if err != nil || got.status != http.StatusOK || got.body != want {
		t.Errorf("repeat: got %v, %v, want %s", got, err, want)
	}
	if got.header.Get("Idempotent-Replayed") != "true" {
		t.Error("repeat: the answer does not say that it is one")
	}
}

// A repeat gets the first answer, on any connection and after any end of the server; another request under the key is
// refused.
func TestIdempotency(t *testing.T) {
	eachShards(t, func(t *testing.T, shards int) {
		s := launch(t, process, shards)
		token := s.account("shop", nil)
		other := s.account("other", nil)
		first, second := sms{number(1), text("shop", 1)}, sms{number(2), text("shop", 2)}
		got, err := s.api(token).post("key", first, second)
		if err != nil || got.status != http.StatusOK || len(got.queued().Items) != 2 {
			t.Fatalf("post: got %v, %v", got, err)
		}
		check := func() {
			t.Helper()
			a := s.api(token)
			a.repeated(t, "key", got.body, first, second)
			a.client = newClient() // another connection
			defer a.client.CloseIdleConnections()
			a.repeated(t, "key", got.body, first, second)
			for _, messages := range [][]sms{{first}, {second, first}, {first, second, second}, {first, {second.Phone, text("shop", 3)}}} {
				refusal, err := a.post("key", messages...)
				if err != nil || refusal.status != http.StatusUnprocessableEntity || refusal.queued().Code != "idempotency_mismatch" {
					t.Errorf("another request: got %v, %v, want 422", refusal, err)
				}
			}
		}
		check()
		s.Stop()
		s.Start()
		check()
		s.Kill()
		s.dropProjections()
		s.Start()
		check()
		// A key is the account's own.
		if got, err := s.api(other).post("key", second); err != nil || got.status != http.StatusOK {
			t.Errorf("another account: got %v, %v", got, err)
		}
		page := s.api(token).mustPull(t, "phone", 200, 0, 2)
		s.api(token).mustReport(t, "phone", success, page, 2)
		check()
		s.api(token).mustPull(t, "phone", 200, 0, 0)
	})
}

// A repeat needs no room under the limit.
func TestIdempotency_LimitReached(t *testing.T) {
	t.Parallel()
	s := launch(t, inside, 1)
	a := s.api(s.account("shop", func(p *streams.Plan) { p.Limit = 2 }))
	messages := []sms{{number(1), text("shop", 1)}, {number(2), text("shop", 2)}}
	got, err := a.post("key", messages...)
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("post: got %v, %v", got, err)
	}
	a.repeated(t, "key", got.body, messages...)
	for _, key := range []string{"", "another"} {
		if got, err := a.post(key, messages...); err != nil || got.queued().Code != "limit_exceeded" {
			t.Errorf("under the key %q: got %v, %v, want a refusal", key, got, err)
		}
	}
	a.mustPull(t, "phone", 200, 0, 2)
}

// Of many that come at once one is stored, and all get its answer.
func TestIdempotency_Concurrent(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) {
		s := launch(t, newHost, shards)
		a := s.api(s.account("shop", func(p *streams.Plan) { p.Limit = 2 })) // room for one of them
		var (
			all     sync.WaitGroup
			mu      sync.Mutex
			answers = map[string]int{}
			begin   = make(chan struct{})
		)
		for range 50 {
			all.Go(func() {
				<-begin
				got, err := a.post("key", sms{number(1), text("shop", 1)}, sms{number(2), text("shop", 2)})
				if err != nil || got.status != http.StatusOK {
					t.Errorf("got %v, %v", got, err)
				}
				mu.Lock()
				defer mu.Unlock()
				answers[got.body]++
			})
		}
		close(begin)
		all.Wait()
		if len(answers) != 1 {
			t.Errorf("got %d different answers, want one: %v", len(answers), answers)
		}
		a.mustPull(t, "phone", 200, 0, 2)
		if got := s.used("shop"); got != 2 {
			t.Errorf("got %d used, want 2", got)
		}
	})
}
