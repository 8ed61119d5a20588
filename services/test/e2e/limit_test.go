package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/streams"
)

// storm posts n messages of one request each, all at once, and counts the answers by status.
func (a api) storm(t *testing.T, sender string, n int) map[int]int {
	t.Helper()
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		stats = map[int]int{}
		begin = make(chan struct{})
	)
	for i := range n {
		all.Go(func() {
			<-begin
			got, err := a.post("", sms{number(i), text(sender, i)})
			// On a busy machine quota may answer too late. Then surely nothing was stored, and a sender tries again.
			for tries := 1; err == nil && got.status == http.StatusServiceUnavailable && got.queued().Code == "quota_unavailable" && tries < 10; tries++ {
				t.Logf("quota was late: %v", got)
				got, err = a.post("", sms{number(i), text(sender, i)})
			}
			if err != nil {
				t.Error(err)
			}
			switch got.status {
			case http.StatusOK:
			case http.StatusTooManyRequests:
				if q := got.queued(); q.Code != "limit_exceeded" || q.Limit != 100 || q.Used != 100 {
					t.Errorf("got a refusal %v, want limit_exceeded with limit and used 100", got)
				}
			default:
				t.Errorf("got %v, want to be accepted, or refused by the limit", got)
			}
			mu.Lock()
			defer mu.Unlock()
			stats[got.status]++
		})
	}
	close(begin)
	all.Wait()
	return stats
}

// shownUsed is what `account show` says an account has used.
func (s *trunkline) shownUsed(name string) int64 {
	s.Helper()
	var shown struct {
		Usage struct {
			Used int64 `json:"used"`
		} `json:"usage"`
	}
	if err := json.Unmarshal([]byte(s.command("account", "show", name, "--json")), &shown); err != nil {
		s.Fatal(err)
	}
	return shown.Usage.Used
}

func limited(p *streams.Plan) { p.Limit = 100 }

// However many come at once, exactly the limit is accepted.
func TestLimit(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) {
		s := launch(t, newHost, shards)
		a := s.api(s.account("shop", limited))
		want := map[int]int{http.StatusOK: 100, http.StatusTooManyRequests: 100}
		if diff := cmp.Diff(want, a.storm(t, "shop", 200)); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		if got := s.shownUsed("shop"); got != 100 {
			t.Errorf("got %d used, want 100", got)
		}
		if got := len(s.enqueued("shop")); got != 100 {
			t.Errorf("got %d messages stored, want 100", got)
		}
	})
}

// A quota that starts again counts on, whether it has its projection still or lost it.
func TestLimit_AcrossRestarts(t *testing.T) {
	t.Parallel()
	for name, deleted := range map[string]bool{"projection kept": false, "projection deleted": true} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, newHost newHost, shards int) {
				s := launch(t, newHost, shards)
				token := s.account("shop", limited)
				if diff := cmp.Diff(map[int]int{http.StatusOK: 60}, s.api(token).storm(t, "before", 60)); diff != "" {
					t.Errorf("answers before (-want +got):\n%s", diff)
				}
				s.Stop()
				if deleted {
					if err := os.Remove(filepath.Join(s.dir, "projections", "quota.db")); err != nil {
						t.Fatal(err)
					}
				}
				s.Start()
				want := map[int]int{http.StatusOK: 40, http.StatusTooManyRequests: 100}
				if diff := cmp.Diff(want, s.api(token).storm(t, "after", 140)); diff != "" {
					t.Errorf("answers after (-want +got):\n%s", diff)
				}
				if got := s.shownUsed("shop"); got != 100 {
					t.Errorf("got %d used, want 100", got)
				}
				if got := len(s.enqueued("shop")); got != 100 {
					t.Errorf("got %d messages stored, want 100", got)
				}
				s.Stop()
				s.Start()
				if diff := cmp.Diff(map[int]int{http.StatusTooManyRequests: 5}, s.api(token).storm(t, "full", 5)); diff != "" {
					t.Errorf("answers at last (-want +got):\n%s", diff)
				}
			})
		})
	}
}
