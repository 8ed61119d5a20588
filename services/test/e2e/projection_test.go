package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/pkg/testkit/apktest"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
)

// history makes everything happen that can happen to messages of an account, and leaves messages in every state.
func history(s *trunkline, name string) {
	s.Helper()
	t := s.T
	a := s.api(s.account(name, func(p *streams.Plan) { p.Limit, p.Lease, p.Attempts = 40, 3*time.Second, 2 }))
	a.queue(t, name, 30)
	key := sms{number(30), text(name, 30)}
	if got, err := a.post("key", key); err != nil || got.status != http.StatusOK {
		t.Fatalf("post: got %v, %v", got, err)
	}
	if got, err := a.post("key", key); err != nil || got.status != http.StatusOK {
		t.Fatalf("repeat: got %v, %v", got, err)
	}
	if got, err := a.post("", make([]sms, 20)...); err != nil || got.status != http.StatusUnprocessableEntity {
		t.Fatalf("invalid: got %v, %v", got, err)
	}
	a.mustPull(t, "dead", 5, 0, 5)
	page := a.mustPull(t, "good", 10, 0, 10)
	a.mustReport(t, "good", success, page[:4], 4)
	a.mustReport(t, "good", failure, page[4:8], 4)
	a.mustReport(t, "", success, page[4:5], 1)    // it went out after all
	a.mustReport(t, "good", success, page[:4], 0) // said before
	cancelled := a.mustPull(t, "slow", 3, 0, 3)
	s.command("message", "cancel", cancelled[0].Hash, cancelled[1].Hash)
	a.mustReport(t, "slow", success, cancelled[:1], 1) // it was too late
	s.command("message", "requeue", page[6].Hash, page[7].Hash)

	// What the dead, the good and the slow one did not report on goes out again, and then fails.
	testkit.Eventually(t, "leases lapse", func() bool { return len(s.list(name, streams.Leased)) == 0 })
	again := a.mustPull(t, "dead", 9, 0, 9)
	late := again[:1]
	testkit.Eventually(t, "attempts are used up", func() bool { return len(s.list(name, streams.Leased)) == 0 })
	a.mustReport(t, "good", success, late, 1) // though it was given up

	// The leases of what follows outlast the test.
	s.withAccounts(func(book *accounts.Accounts) (uint64, error) {
		long := time.Hour
		return book.Set(s.Context(), name, accounts.Change{Lease: &long})
	})
	a.mustPull(t, "late", 3, 0, 3)
	states := map[streams.State]bool{}
	for _, m := range s.list(name) {
		states[m.State] = true
	}
	for _, want := range []streams.State{streams.Pending, streams.Leased, streams.Delivered, streams.Failed, streams.Cancelled} {
		if !states[want] {
			t.Errorf("no message of %s is %v", name, want)
		}
	}
}

// A rebuilt projection equals the one that was there, after a history of all that can happen.
func TestProjections(t *testing.T) {
	eachShards(t, func(t *testing.T, shards int) {
		s := launch(t, process, shards)
		t.Run("history", func(t *testing.T) {
			for _, name := range spread(shards, s.shards) {
				t.Run(name, func(t *testing.T) {
					t.Parallel() // each waits for its leases
					history(s.within(t), name)
				})
			}
		})
		s.publish(apktest.App{Code: 4}, "--activate")
		s.publish(apktest.App{Code: 5}, "--activate")
		s.download("/download/app.apk")
		testkit.Eventually(t, "the download is counted", func() bool { return s.downloads() == 1 })
		s.command("release", "withdraw", "4")
		s.verify()
		live := s.dumps()
		for name, dump := range live {
			if strings.Count(dump, "\n") < 2 || strings.Contains(dump, "secret-text-") {
				t.Errorf("got a dump of %s that is empty or holds texts:\n%s", name, dump)
			}
		}
		equal := func(what string) {
			t.Helper()
			if diff := cmp.Diff(live, s.dumps()); diff != "" {
				t.Errorf("dumps after %s (-before +after):\n%s", what, diff)
			}
			s.verify()
		}
		s.Stop()
		s.Start()
		equal("a restart")
		s.Kill()
		s.Start()
		equal("a kill")
		s.Stop()
		s.dropProjections()
		s.Start()
		equal("the files were deleted")
		s.rebuild()
		equal("a rebuild while it runs")
		s.Kill()
		s.garble()
		s.Start()
		equal("the files were damaged")
	})
}

// garble overwrites the beginning of every projection's file.
func (s *trunkline) garble() {
	s.Helper()
	for _, path := range s.projections() {
		file, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY, 0)
		if err == nil {
			_, err = file.WriteAt(make([]byte, 1<<13), 0)
		}
		if err != nil {
			s.Fatal(err)
		}
		if err := file.Close(); err != nil {
			s.Fatal(err)
		}
	}
}

// Who asks right after the start, when the projection is rebuilt, is told the truth.
func TestProjections_AskedWhileFolding(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 1)
	a := s.api(s.account("shop", nil))
	var newest string
	for i := range 20 {
		all := make([]sms, 1000)
		for k := range all {
			all[k] = sms{number(k), text("shop", 1000*i+k)}
		}
		got, err := a.post("", all...)
		items := got.queued().Items
		if err != nil || len(items) != len(all) {
			t.Fatalf("post: got %d, %v", got.status, err)
		}
		newest = items[len(items)-1].Hash
	}
	s.Kill()
	s.dropProjections()
	s.Start()
	if listed := s.list("shop"); len(listed) == 0 || listed[0].ID.String() != newest {
		t.Errorf("got %d messages listed, want the newest to be %s", len(listed), newest)
	}
	s.command("message", "show", newest)
}
