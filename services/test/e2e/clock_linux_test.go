package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/pkg/testkit/testnote"
	"github.com/trunkline-sms/trunkline/streams"
)

// steppedHost runs Trunkline on a machine whose wall clock a test steps: the command is built with a package time
// that adds what a file says. The engine goes by that clock too.
type steppedHost struct {
	processHost
	clock string
}

const day = 24 * time.Hour

// steppedTime is what is added to package time.
const steppedTime = `package time

import (
	"sync/atomic"
	"syscall"
)

// stepped is by how many seconds the wall clock is stepped: what a file says, read again twenty times a second. Who
// asks for the time may not be allowed to read one.
var stepped atomic.Int64

func init() {
	name, ok := syscall.Getenv("TRUNKLINE_TEST_CLOCK")
	if !ok {
		return
	}
	readStep(name)
	go func() {
		for {
			Sleep(50 * Millisecond)
			readStep(name)
		}
	}()
}

func readStep(name string) {
	file, err := open(name)
	if err != nil {
		return
	}
	var b [32]byte
	n, _ := read(file, b[:])
	closefd(file)
	by, sign := int64(0), int64(1)
	for _, c := range b[:max(n, 0)] {
		switch {
		case c == '-':
			sign = -1
		case c >= '0' && c <= '9':
			by = by*10 + int64(c-'0')
		}
	}
	stepped.Store(sign * by)
}
`

// steppedCommand is the command over such a package time.
var steppedCommand = sync.OnceValues(func() (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the standard library: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		return "", fmt.Errorf("read package time: %w", err)
	}
	const reads = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), reads) != 1 {
		return "", fmt.Errorf("%s reads the clock in another way", source)
	}
	changed := strings.Replace(string(text), reads, reads+"\tsec += stepped.Load()\n", 1)
	replace := map[string]string{}
	for name, text := range map[string]string{"time.go": changed, "stepped_linux.go": steppedTime} {
		path := filepath.Join(built.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write package time: %w", err)
		}
		replace[filepath.Join(source, name)] = path
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	path := filepath.Join(built.dir, "overlay.json")
	if err == nil {
		err = os.WriteFile(path, overlay, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("write the overlay: %w", err)
	}
	command := filepath.Join(built.dir, "trunkline-stepped")
	if out, err := exec.Command("go", "build", "-overlay", path, "-o", command, "../../cmd/trunkline").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return command, nil
})

// stepped gives a server that runs on a machine whose clock is right as yet.
func stepped(t *testing.T) (*trunkline, *steppedHost) {
	t.Helper()
	if _, err := steppedCommand(); err != nil {
		testnote.Skip(t, "no command can be built whose clock steps: "+err.Error())
	}
	h := &steppedHost{clock: filepath.Join(t.TempDir(), "clock")}
	h.step(t, 0)
	s := launch(t, func(dir string, shards int) host {
		h.processHost = processHost{dir: dir, shards: shards}
		return h
	}, 1)
	return s, h
}

// step sets by how much the clock is wrong.
func (h *steppedHost) step(t *testing.T, by time.Duration) {
	t.Helper()
	err := os.WriteFile(h.clock+".new", fmt.Appendf(nil, "%d", int64(by/time.Second)), 0o600)
	if err == nil {
		err = os.Rename(h.clock+".new", h.clock)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// launch runs the command, which prints more once it is ready.
func (h *steppedHost) launch(t *testing.T, flags ...string) io.Reader {
	t.Helper()
	cmd := h.serve(t)
	path, err := steppedCommand()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = path
	cmd.Args = append(cmd.Args, flags...)
	cmd.Env = append(cmd.Env, "TRUNKLINE_TEST_CLOCK="+h.clock)
	return h.begin(t, cmd)
}

func (h *steppedHost) start(t *testing.T) started {
	t.Helper()
	return h.await(t, h.launch(t))
}

func (h *steppedHost) await(t *testing.T, out io.Reader) started {
	t.Helper()
	begun, err := h.ready(out)
	if err != nil {
		t.Fatalf("the server did not start: %v; its log is %s", err, h.log.Name())
	}
	return begun
}

// began takes over a server that was launched.
func (s *trunkline) began(begun started) {
	s.url, s.client, s.running = begun.url, begun.client, true
}

// says waits until the server that runs has logged a line.
func (s *trunkline) says(words ...string) {
	s.Helper()
	testkit.Eventually(s, "a line with "+strings.Join(words, ", "), func() bool {
		log, err := os.ReadFile(s.host.(*steppedHost).log.Name())
		if err != nil {
			s.Fatal(err)
		}
		return slices.ContainsFunc(strings.Split(string(log), "\n"), func(line string) bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
		})
	})
}

// accept posts messages and gives their texts.
func (s *trunkline) accept(token, name string, n int) (texts []string) {
	s.Helper()
	var all []sms
	for i := range n {
		all = append(all, sms{number(i), text(name, i)})
		texts = append(texts, text(name, i))
	}
	if got, err := s.api(token).post("key-"+name, all...); err != nil || got.status != 200 {
		s.Fatalf("post %s: got %v, %v", name, got, err)
	}
	return texts
}

// take pulls a page for a phone, which has to be these texts.
func (s *trunkline) take(token, device string, want []string) (page []outgoing) {
	s.Helper()
	page, err := s.api(token).pull(device, 100, 5)
	var got []string
	for _, m := range page {
		got = append(got, m.Text)
	}
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		s.Errorf("%s got %v, %v, want %v", device, got, err, want)
	}
	return page
}

// send reports a page as sent, of which all has to be known.
func (s *trunkline) send(token, device string, page []outgoing) {
	s.Helper()
	var items []string
	for _, m := range page {
		items = append(items, fmt.Sprintf(`{"hash":%q,"status":2}`, m.Hash))
	}
	body := fmt.Sprintf(`{"device":%q,"messages":[%s]}`, device, strings.Join(items, ","))
	got, err := s.api(token).do("POST", "/status", body)
	if want := fmt.Sprintf(`"updated":%d`, len(page)); err != nil || got.status != 200 || !strings.Contains(got.body, want) || strings.Contains(got.body, "Unknown hash") {
		s.Errorf("report of %s: got %v, %v, want %s", device, got, err, want)
	}
}

const (
	hasStepped = "the clock has stepped"
	isBack     = "the clock is back where it was"
)

// The clock is 32 days ahead at a start, and is put right soon.
func TestClock_AheadAtAStart(t *testing.T) {
	t.Parallel()
	s, h := stepped(t)
	before := s.accept(s.token, "before", 3)
	s.Stop()
	h.step(t, 32*day)
	out := h.launch(t)
	s.says("the engine is not started", "--clock-is-right")
	h.step(t, 0)
	s.began(h.await(t, out))
	after := s.accept(s.token, "after", 2)
	s.send(s.token, "phone", s.take(s.token, "phone", append(before, after...)))
	s.verify()
}

// After two months off an operator says that the clock is right.
func TestClock_RightAfterTwoMonthsOff(t *testing.T) {
	t.Parallel()
	s, h := stepped(t)
	before := s.accept(s.token, "before", 1)
	s.send(s.token, "phone", s.take(s.token, "phone", before))
	s.Stop()
	h.step(t, 60*day)
	s.began(h.await(t, h.launch(t, "--clock-is-right")))
	after := s.accept(s.token, "after", 2)
	s.send(s.token, "phone", s.take(s.token, "phone", after))
	s.verify()
	s.Stop()
	s.Start() // which it goes on believing
	s.send(s.token, "phone", s.take(s.token, "phone", s.accept(s.token, "later", 1)))
}

// The clock of a running server steps back by 10 minutes.
func TestClock_StepsBack(t *testing.T) {
	t.Parallel()
	s, h := stepped(t)
	before := s.take(s.token, "phone", s.accept(s.token, "before", 3))
	h.step(t, -10*time.Minute)
	s.says(hasStepped)
	s.send(s.token, "phone", before)
	during := s.take(s.token, "phone", s.accept(s.token, "during", 3))
	h.step(t, 0)
	s.says(isBack)
	s.send(s.token, "phone", during)
	s.send(s.token, "other", s.take(s.token, "other", s.accept(s.token, "after", 1)))
	s.verify()
}

// The clock of a running server is 400 days ahead for a moment.
func TestClock_FarAheadForAMoment(t *testing.T) {
	t.Parallel()
	s, h := stepped(t)
	token := s.account("limited", func(plan *streams.Plan) { plan.Limit = 12 })
	all := s.accept(token, "before", 4)
	h.step(t, 400*day)
	s.says(hasStepped)
	all = append(all, s.accept(token, "during", 4)...)
	h.step(t, 0)
	s.says(isBack)
	all = append(all, s.accept(token, "after", 4)...)
	if got, err := s.api(token).post("", sms{number(1), text("beyond", 1)}); err != nil || got.status == 200 {
		t.Errorf("beyond the limit: got %v, %v", got, err)
	}
	if used := s.used("limited"); used != 12 {
		t.Errorf("%d used, want 12", used)
	}
	s.verify()
	page := s.take(token, "phone", all)
	s.send(token, "phone", page)
	s.verify()
	s.Stop()
	s.dropProjections()
	s.Start()
	if used := s.used("limited"); used != 12 {
		t.Errorf("%d used after a rebuild, want 12", used)
	}
	s.take(token, "phone", nil)
	s.verify()
}

// The clock of a running server is 400 days ahead when the engine looks for what is over: for keys whose day is over in
// ENQUEUE, and in all streams where an operator changes one.
func TestClock_FarAheadWhenKeysEnd(t *testing.T) {
	t.Parallel()
	s, h := stepped(t)
	all := s.accept(s.token, "before", 4)
	sent := s.take(s.token, "phone", all)
	s.send(s.token, "phone", sent[:2])
	h.step(t, 400*day)
	s.says(hasStepped)
	all = s.accept(s.token, "during", 4)
	s.withBus(func(b *bus.Bus) {
		const key = "ends in a second"
		subject := streams.KeySubject(0, streams.AccountIDOf("nobody"), key)
		if _, err := b.JS.Publish(t.Context(), subject, nil, jetstream.WithMsgTTL(time.Second)); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{streams.EnqueueStream(0), streams.StatusStream(0)} {
			stream, err := b.JS.Stream(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			changed := stream.CachedInfo().Config
			changed.MaxBytes++
			if _, err := b.JS.UpdateStream(t.Context(), changed); err != nil {
				t.Fatal(err)
			}
		}
		testkit.Eventually(t, "the engine has dropped a key whose time is over", func() bool {
			_, err := b.LastForSubject(t.Context(), streams.EnqueueStream(0), subject)
			return errors.Is(err, bus.ErrNoMessage)
		})
	})
	h.step(t, 0)
	s.says(isBack)
	s.verify()
	s.send(s.token, "phone", sent[2:])
	s.send(s.token, "phone", s.take(s.token, "phone", all))
	s.Stop()
	s.dropProjections()
	s.Start()
	if got := s.list("default", streams.Sent, streams.Delivered); len(got) != 8 {
		t.Errorf("after a rebuild %d messages are known to be sent, want 8", len(got))
	}
	s.take(s.token, "phone", nil)
	s.verify()
}
