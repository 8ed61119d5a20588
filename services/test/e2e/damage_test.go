package e2e

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/streams"
)

// flip changes one bit of the last place where a file holds a text.
func flip(t *testing.T, path, text string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(data, []byte(text))
	if at < 0 {
		t.Fatalf("%s does not hold what is to be damaged", path)
	}
	data[at+len(text)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// block is the file that holds the first messages of the first shard.
func (s *trunkline) block() string {
	s.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, "engine", "jetstream", "*", "streams", streams.EnqueueStream(0), "msgs", "1.blk"))
	if err != nil || len(found) != 1 {
		s.Fatalf("got the blocks %v, %v, want one", found, err)
	}
	return found[0]
}

// logged says whether the server that runs has logged a line with all of these.
func (s *trunkline) logged(words ...string) bool {
	s.Helper()
	log, err := os.ReadFile(s.host.(*processHost).log.Name())
	if err != nil {
		s.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return true
		}
	}
	return false
}

// deliver pulls everything that there is, which has to be so many messages, and reports it.
func (a api) deliver(t *testing.T, device string, want int) (texts map[string]bool) {
	t.Helper()
	texts = map[string]bool{}
	page := a.mustPull(t, device, 100, 0, want)
	if want == 0 {
		return texts
	}
	for _, m := range page {
		texts[m.Text] = true
	}
	a.mustReport(t, device, success, page, want)
	a.mustPull(t, device, 100, 0, 0)
	return texts
}

// A bit that flips in a message on the disk costs that message, and no phone gets it as something else. The log says
// so, the others go out, and the damaged one can be cancelled.
func TestDamage_Message(t *testing.T) {
	t.Parallel()
	const all, damaged = 30, 7
	for name, test := range map[string]struct {
		before func(*testing.T, *trunkline, api) // what happens to the messages first
		end    func(*trunkline)
		logs   []string
	}{
		"killed": {
			func(*testing.T, *trunkline, api) {},
			(*trunkline).Kill,
			[]string{"the disk has damaged a stream", streams.EnqueueStream(0)},
		},
		"stopped": {
			func(*testing.T, *trunkline, api) {},
			(*trunkline).Stop,
			[]string{"a message is damaged on the disk and is not sent", streams.EnqueueStream(0)},
		},
		"handed out before": {
			func(t *testing.T, s *trunkline, a api) {
				a.mustPull(t, "lost", all, 0, all)
				testkit.Eventually(t, "the lease lapses", func() bool { return len(s.list("shop", streams.Leased)) == 0 })
			},
			(*trunkline).Stop,
			[]string{"a message is damaged on the disk and is not sent", streams.EnqueueStream(0)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := launch(t, process, 1)
			token := s.account("shop", func(p *streams.Plan) { p.Lease = time.Second })
			a := s.api(token)
			a.queue(t, "shop", all)
			testkit.Eventually(t, "all are folded", func() bool { return len(s.list("shop")) == all })
			test.before(t, s, a)
			test.end(s)
			flip(t, s.block(), text("shop", damaged))
			s.Start()
			a = s.api(token)
			got := a.deliver(t, "phone", all-1)
			for n := range all {
				if sent := got[text("shop", n)]; sent == (n == damaged) {
					t.Errorf("message %d: sent %t", n, sent)
				}
			}
			if !s.logged(test.logs...) {
				t.Errorf("no line says %q", test.logs)
			}
			left := s.list("shop", streams.Pending)
			if len(left) != 1 {
				t.Fatalf("%d messages wait, want the damaged one", len(left))
			}
			s.command("message", "cancel", left[0].ID.String())
			a.queue(t, "after", 3)
			a.deliver(t, "phone", 3)
		})
	}
}

// A stream whose file the engine cannot read: the start says which, and leaves everything as it was, where the engine
// would delete the stream. With the file mended, all is there.
func TestDamage_UnreadableStream(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 1)
	a := s.api(s.token)
	a.queue(t, "shop", 3)
	a.deliver(t, "phone", 3)
	s.Kill()
	path := strings.Replace(s.block(), streams.EnqueueStream(0), streams.StatusStream(0), 1)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// What a block begins with that was compressed and is damaged.
	if err := os.WriteFile(path, append([]byte("cmp\x01\x20\x00\x00\x00\x00\x00\x00\x00"), whole...), 0o600); err != nil {
		t.Fatal(err)
	}
	if line := refusedStart(t, "--data", s.dir, "--log-level", "error"); !strings.Contains(line, "cannot open "+streams.StatusStream(0)) {
		t.Errorf("got %q, want a line that names the stream", line)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.api(s.token).deliver(t, "phone", 0)
	s.verify()
}

// A bit that flips in the file of a stopped server's projection is found at the start. In that of a killed one's it
// may be a wrong value: verify finds it, and rebuild mends it.
func TestDamage_Projection(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 1)
	a := s.api(s.token)
	a.queue(t, "shop", 30)
	a.deliver(t, "phone", 30)
	live := s.dumps()
	file := filepath.Join(s.dir, "projections", "dispatcher-0.db")
	id := s.list("default")[0].ID
	// The record of a message stands behind its key.
	value := func(path string) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		key := []byte{byte(id >> 56), byte(id >> 48), byte(id >> 40), byte(id >> 32), byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}
		for at := range data { // in every version of the page that the file holds
			if bytes.HasPrefix(data[at:], key) {
				data[at+len(key)+4] ^= 1
			}
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	s.Stop()
	value(file)
	s.Start()
	if !s.logged("projection is rebuilt", "dispatcher-0.db", "checksum") {
		t.Error("no line says that the file was damaged")
	}
	if diff := cmp.Diff(live, s.dumps()); diff != "" {
		t.Errorf("dumps after the damage was found (-before +after):\n%s", diff)
	}

	s.Kill()
	value(file)
	s.Start()
	if found := s.failing("projection", "verify", "dispatcher-0"); found == "" && !s.logged("projection is rebuilt", "dispatcher-0.db") {
		t.Error("verify finds no difference, and the file was not rebuilt")
	}
	s.command("projection", "rebuild", "dispatcher-0")
	s.verify()
	if diff := cmp.Diff(live, s.dumps()); diff != "" {
		t.Errorf("dumps after the rebuild (-before +after):\n%s", diff)
	}
	if got, err := s.api(s.token).health(); err != nil || got.status != http.StatusOK {
		t.Errorf("health: got %v, %v", got, err)
	}
}

// failing runs a command that has to fail, and gives what it says; empty if it succeeds.
func (s *trunkline) failing(args ...string) string {
	s.Helper()
	out, err := command(s, append(args, "--data", s.dir)...).CombinedOutput()
	if err == nil {
		return ""
	}
	return string(out)
}
