package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/services/dispatcher"
	"github.com/trunkline-sms/trunkline/streams"
)

// flood posts all messages of some senders at once, each sender one request after the other, and gives how many.
func flood(a api, j *journal, senders, requests int, seed uint64) (messages int, wait func() error) {
	var g errgroup.Group
	for i := range senders {
		draw := rand.New(rand.NewPCG(seed, uint64(i)))
		sizes := make([]int, requests)
		for r := range sizes {
			sizes[r] = 1 + draw.IntN(20)
			messages += sizes[r]
		}
		g.Go(func() error {
			n := 0
			for _, size := range sizes {
				all := make([]sms, size)
				for k := range all {
					all[k] = sms{number(n), text(fmt.Sprintf("s%d", i), n)}
					n++
				}
				j.posting(all)
				got, err := a.post("", all...)
				if j.posted(all, false, got, err); err != nil || got.status != http.StatusOK {
					return fmt.Errorf("post: got %v, %w", got, err)
				}
			}
			return nil
		})
	}
	return messages, g.Wait
}

// inOrder checks that the messages of each sender follow each other as they were posted, and without a gap where whole
// says that nobody else pulls.
func inOrder(t *testing.T, page []outgoing, last map[string]int, whole bool) {
	t.Helper()
	for _, m := range page {
		sender, n := postedBy(t, m.Text)
		before, ok := last[sender]
		if !ok {
			before = -1
		}
		if whole && n != before+1 || n <= before {
			t.Errorf("after message %d of %s came %d", before, sender, n)
		}
		last[sender] = n
	}
}

func postedBy(t *testing.T, text string) (sender string, n int) {
	t.Helper()
	words := strings.Split(strings.TrimPrefix(text, "secret-text-"), "-")
	if len(words) == 2 {
		var err error
		if n, err = strconv.Atoi(words[1]); err == nil {
			return words[0], n
		}
	}
	t.Fatalf("got a text that no sender posted: %q", text)
	return "", 0
}

// One phone gets everything in the order in which it was posted, while senders flood.
func TestOrder_OnePhone(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) {
		s := launch(t, newHost, shards)
		a, j := s.api(s.account("shop", nil)), newJournal(streams.DefaultLease)
		want, wait := flood(a, j, 4, 25, 1)
		last := map[string]int{}
		var order []string
		for got := 0; got < want; {
			asked := time.Now()
			page, err := a.pull("one", 1+got%200, 5)
			if err != nil {
				t.Fatal(err)
			}
			j.pulled("one", asked, page)
			inOrder(t, page, last, true)
			got += len(page)
			for _, m := range page {
				order = append(order, m.Hash)
			}
			if _, err := a.report("one", success, page); len(page) > 0 && err != nil {
				t.Fatal(err)
			}
			j.reported(page)
			if t.Failed() {
				break
			}
		}
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.enqueued("shop"), order); diff != "" {
			t.Errorf("handed out otherwise than stored (-stored +handed out):\n%s", diff)
		}
		if c := j.check(t); c.Delivered != want {
			t.Errorf("got %+v, want %d delivered", c, want)
		}
	})
}

// Several phones get pages that are in order and share nothing.
func TestOrder_ManyPhones(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) {
		s := launch(t, newHost, shards)
		a, j := s.api(s.account("shop", nil)), newJournal(streams.DefaultLease)
		want, wait := flood(a, j, 6, 25, 2)
		var phones sync.WaitGroup
		for i := range 8 {
			device := fmt.Sprintf("phone-%d", i)
			phones.Go(func() {
				for {
					asked := time.Now()
					page, err := a.pull(device, 1+i*3, 1)
					if err != nil {
						t.Error(err)
						return
					}
					j.pulled(device, asked, page)
					inOrder(t, page, map[string]int{}, false)
					if len(page) == 0 {
						if j.count().Delivered == want {
							return
						}
						continue
					}
					if updated, err := a.report(device, success, page); err != nil || updated != len(page) {
						t.Errorf("report of %d: got %d updated, %v", len(page), updated, err)
						return
					}
					j.reported(page)
				}
			})
		}
		if err := wait(); err != nil {
			t.Error(err)
		}
		phones.Wait()
		if c := j.check(t); c.Delivered != want || c.Again != 0 {
			t.Errorf("got %+v, want %d delivered, none again", c, want)
		}
	})
}

// An account that holds too many pages is told to report first.
func TestTooManyLeases(t *testing.T) {
	t.Parallel()
	most := many(100, dispatcher.DefaultConfig().MaxLeases)
	s := launch(t, func(dir string, shards int) host {
		h := inside(dir, shards).(*insideHost)
		h.cfg.Dispatcher.MaxLeases = most
		return h
	}, 1)
	a := s.api(s.account("shop", nil))
	all := make([]sms, most)
	for i := range all {
		all[i] = sms{number(i), text("s", i)}
	}
	for range 2 {
		if got, err := a.post("", all...); err != nil || got.status != http.StatusOK {
			t.Fatalf("post: got %d, %v", got.status, err)
		}
	}
	var page []outgoing
	for i := range most {
		var err error
		if page, err = a.pull("", 1, 0); err != nil || len(page) != 1 {
			t.Fatalf("pull %d: got %d messages, %v", i, len(page), err)
		}
	}
	got, err := a.do(http.MethodGet, "/get_messages", "")
	if err != nil || got.status != http.StatusTooManyRequests || got.queued().Code != "too_many_leases" || got.header.Get("Retry-After") == "" {
		t.Errorf("got %v, %v, want 429 with when to come again", got, err)
	}
	if _, err := a.report("", success, page); err != nil {
		t.Fatal(err)
	}
	if page, err := a.pull("", 1, 0); err != nil || len(page) != 1 {
		t.Errorf("after a report: got %d messages, %v", len(page), err)
	}
}
