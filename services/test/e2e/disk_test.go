package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/pkg/testkit/disktest"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	smallDisk = 400 << 20 // with the reserve of the defaults, 128 MiB
	mib       = 1 << 20
)

// launchOn starts a Trunkline with its data on a disk that is mounted.
func launchOn(t *testing.T, disk string, newHost newHost) *trunkline {
	t.Helper()
	s := &trunkline{T: t, dir: filepath.Join(disk, "data"), shards: 1}
	s.host = newHost(s.dir, 1)
	t.Cleanup(func() {
		if s.running {
			s.Stop()
		}
	})
	s.Start()
	return s
}

// one posts a message, and gives up long before an outcome would count as unknown.
func (a api) one(sender string, n int) (answer, error) {
	ctx, cancel := context.WithTimeout(a.ctx, 5*time.Second)
	defer cancel()
	a.ctx = ctx
	return a.post("", sms{number(n), text(sender, n)})
}

// awaitPost posts one message after the other until one is answered with a status, and gives that answer. It notes
// them all.
func (b *burst) awaitPost(sender string, from, status int) (got answer) {
	b.Helper()
	n := from
	testkit.Eventually(b.T, fmt.Sprintf("a post is answered %d", status), func() bool {
		messages := []sms{{number(n), text(sender, n)}}
		n++
		b.journal.posting(messages)
		answered, err := b.api(b.tokens[1]).one(sender, n-1)
		b.journal.posted(messages, false, answered, err)
		got = answered
		return answered.status == status
	})
	return got
}

// check asks for one of the checks of health.
func (s *trunkline) check(name string) (status, description string, answered int) {
	s.Helper()
	got, err := s.api(s.token).health()
	if err != nil {
		s.Fatal(err)
	}
	var health struct {
		Checks map[string]struct{ Status, Description string } `json:"checks"`
	}
	if err := json.Unmarshal([]byte(got.body), &health); err != nil {
		s.Fatalf("health: got %v", got)
	}
	return health.Checks[name].Status, health.Checks[name].Description, got.status
}

func (a api) health() (answer, error) {
	a.base = a.base[:strings.Index(a.base, "/api/")]
	return a.do(http.MethodGet, "/health/ready", "")
}

// whileBursting runs senders and phones, and calls during in the middle of it.
func (b *burst) whileBursting(during func()) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	enough := b.journal.after(300)
	wait := b.run(ctx)
	<-enough
	during()
	stop()
	wait()
}

// Below the reserve senders are told at once that there is no room, while phones work; with room they are served
// again, by the same server. Nothing that was answered 2xx is lost or delivered twice.
func TestDisk_NearlyFull(t *testing.T) {
	disk := disktest.Tmpfs(t, smallDisk)
	b := newBurst(launchOn(t, disk, process), chance(t))
	b.fill() // so that no sender ends by itself
	if status, description, _ := b.check("disk:full"); status != "pass" {
		t.Errorf("health: got %s, %s, want pass", status, description)
	}
	a := b.api(b.account("reports", nil))
	a.queue(t, "before", 5)
	key := sms{number(5), text("before", 5)}
	first, err := a.post("key", key)
	if err != nil || first.status != http.StatusOK {
		t.Fatalf("post: got %v, %v", first, err)
	}
	var remove func()
	b.whileBursting(func() { remove = disktest.Fill(t, disk, 100*mib) })

	got := b.awaitPost("refused", 0, http.StatusServiceUnavailable)
	if code := got.queued().Code; code != "queue_full" || got.header.Get("Retry-After") == "" {
		t.Errorf("got %v, Retry-After %q, want queue_full and when to come again", got, got.header.Get("Retry-After"))
	}
	a.repeated(t, "key", first.body, key)
	page := a.mustPull(t, "phone", 10, 0, 6)
	a.mustReport(t, "phone", success, page, 6)
	b.drain()
	if status, description, answered := b.check("disk:full"); status != "warn" || answered != http.StatusOK || !strings.Contains(description, "senders") {
		t.Errorf("health: got %d, %s, %s, want 200 and a warning that says who is refused", answered, status, description)
	}

	remove()
	b.awaitPost("again", 0, http.StatusOK)
	b.whileBursting(func() {})
	b.drain()
	b.verify()
	c := b.journal.check(t)
	t.Logf("%+v", c)
	if c.Lost != 0 || c.Doubled != 0 || c.Refused == 0 {
		t.Errorf("got %+v, want some refused, none lost, none doubled", c)
	}
}

// On a disk that somebody else fills to its last byte, nothing is answered 2xx that is not stored. The server stays,
// says what is wrong, and works again when there is room.
func TestDisk_Full(t *testing.T) {
	disk := disktest.Tmpfs(t, smallDisk)
	b := newBurst(launchOn(t, disk, process), chance(t))
	var remove func()
	b.whileBursting(func() {
		remove = disktest.Fill(t, disk, 0)
		testkit.Eventually(t, "health tells that the disk is full", func() bool {
			status, _, answered := b.check("disk:full")
			return status == "fail" && answered == http.StatusServiceUnavailable
		})
		b.awaitPost("refused", 0, http.StatusServiceUnavailable)
	})

	remove()
	b.awaitPost("again", 0, http.StatusOK)
	testkit.Eventually(t, "every part answers", func() bool {
		got, err := b.api(b.token).health()
		return err == nil && strings.HasPrefix(got.body, `{"status":"pass"`)
	})
	b.repeatUnanswered()
	b.drain()
	b.verify()
	c := b.journal.check(t)
	t.Logf("%+v", c)
	if c.Lost != 0 || c.Doubled != 0 || c.Accepted == 0 {
		t.Errorf("got %+v, want none lost, none doubled", c)
	}
	b.Stop()
	b.Start()
	if waiting := b.list(b.accounts[1], streams.Pending, streams.Leased); len(waiting) != 0 {
		t.Errorf("after a restart %d messages wait, want none", len(waiting))
	}
}

// A stream that is full refuses senders; phones do their work on another one.
func TestDisk_FullStream(t *testing.T) {
	t.Parallel()
	s := launch(t, func(dir string, shards int) host {
		h := inside(dir, shards).(*insideHost)
		h.cfg.Engine.EnqueueMaxBytes = mib
		return h
	}, 1)
	a := s.api(s.token)
	journal := newJournal(time.Hour)
	for n := 0; ; n += 100 {
		messages := make([]sms, 100)
		for i := range messages {
			messages[i] = sms{number(n + i), text("shop", n+i)}
		}
		journal.posting(messages)
		got, err := a.post("", messages...)
		journal.posted(messages, false, got, err)
		if err != nil || n > 20_000 {
			t.Fatalf("post: got %v, %v after %d messages", got, err, n)
		}
		if got.status == http.StatusOK {
			continue
		}
		// It may be known by then that the account has its share of the stream.
		if code := got.queued().Code; got.status != http.StatusServiceUnavailable || code != "queue_full" && code != "share_used" || got.header.Get("Retry-After") == "" {
			t.Errorf("got %v, want 503 queue_full and when to come again", got)
		}
		break
	}
	for left := journal.count().Accepted; left > 0; {
		asked := time.Now()
		page := a.mustPull(t, "phone", 100, 0, min(left, 100))
		journal.pulled("phone", asked, page)
		a.mustReport(t, "phone", success, page, len(page))
		journal.reported(page)
		left -= len(page)
	}
	a.mustPull(t, "phone", 100, 0, 0)
	if c := journal.check(t); c.Lost != 0 || c.Accepted < 1000 || c.Refused != 100 {
		t.Errorf("got %+v, want the accepted ones delivered and the last hundred refused", c)
	}
}

// A disk that fails and can only be read from then on: no answer says that anything was stored. With the disk
// replaced, all that was answered before is there.
func TestDisk_Fails(t *testing.T) {
	disk := disktest.Ext4(t, 512*mib)
	b := newBurst(launchOn(t, disk.Dir, process), chance(t))
	b.whileBursting(func() {})
	disk.Fail(t)
	a := b.api(b.tokens[1])
	var all []answer
	for n := range 3 { // the first finds out, the next know
		messages := []sms{{number(n), text("failed", n)}}
		b.journal.posting(messages)
		got, err := a.post("", messages...)
		if got.status/100 == 2 || err != nil {
			t.Errorf("post: got %v, %v on a disk that cannot be written", got, err)
		}
		b.journal.posted(messages, false, got, err)
		all = append(all, got)
	}
	if last := all[len(all)-1]; last.status != http.StatusServiceUnavailable || last.queued().Code != "not_stored" {
		t.Errorf("got %v, want 503 not_stored", last)
	}
	if status, description, answered := b.check("disk:full"); status != "fail" || answered != http.StatusServiceUnavailable {
		t.Errorf("health: got %d, %s, %s, want it to fail", answered, status, description)
	}
	b.Kill()
	disk.Replace(t)
	b.Start()
	b.repeatUnanswered()
	b.drain()
	if c := b.journal.check(t); c.Lost != 0 || c.Doubled != 0 || c.Accepted == 0 {
		t.Errorf("got %+v, want none lost, none doubled", c)
	}
}

// A server does not start where it cannot write, and says so.
func TestDisk_ReadOnly(t *testing.T) {
	disk := disktest.Tmpfs(t, smallDisk)
	s := launchOn(t, disk, process)
	a := s.api(s.token)
	a.queue(t, "shop", 3)
	s.Stop()
	disktest.Remount(t, disk, "ro")
	if line := refusedStart(t, "--data", s.dir); !strings.Contains(line, "read-only file system") {
		t.Errorf("got %q, want a line that says what is wrong", line)
	}
	disktest.Remount(t, disk, "rw")
	s.Start()
	s.api(s.token).mustPull(t, "phone", 10, 0, 3)
}
