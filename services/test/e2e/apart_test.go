package e2e

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit"
)

// apartHost runs the parts of Trunkline in processes of their own over one engine, so that each can get its own signals.
type apartHost struct {
	dir    string
	shards int
	counts []kind
	client *http.Client
	engine *part
	parts  map[string]*part // "dispatcher-0"

	behind map[string]string // by part: the directory by which it finds the engine, if not dir
}

// kind is how many there are of one part.
type kind struct {
	role  string
	count int
}

// apart makes a host of so many parts of each role, which start in this order.
func apart(client *http.Client, counts ...kind) newHost {
	return func(dir string, shards int) host {
		return &apartHost{dir: dir, shards: shards, counts: counts, client: client, parts: map[string]*part{}}
	}
}

// part is one process.
type part struct {
	role   string
	number int
	url    string // of an ingress
	cmd    *exec.Cmd
	log    *os.File
	stdin  io.Closer
	read   chan struct{} // closed when all of standard output has been read
	paused bool
}

func (p *part) name() string { return fmt.Sprintf("%s-%d", p.role, p.number) }

func (h *apartHost) start(t *testing.T) started {
	t.Helper()
	h.engine = h.run(t, "engine", 0)
	for _, k := range h.counts {
		for number := range k.count {
			h.begin(t, k.role, number)
		}
	}
	return started{url: h.parts["ingress-0"].url, client: h.client}
}

// begin starts a part, and returns when it answers.
func (h *apartHost) begin(t *testing.T, role string, number int) *part {
	t.Helper()
	p := h.run(t, role, number)
	h.parts[p.name()] = p
	awaited, want := role, 0
	if role == "quota" {
		awaited = "projection-quota" // which those answer that stand by, too
	}
	for _, other := range h.parts {
		if other.role == role && other.cmd != nil {
			want++
		}
	}
	testkit.Eventually(t, p.name()+" answers", func() bool { return h.answering(t, awaited) >= want })
	if role == "quota" {
		testkit.Eventually(t, "a quota leads", func() bool { return h.answering(t, "quota") == 1 })
	}
	if role == "ingress" {
		testkit.Eventually(t, p.name()+" is ready", func() bool {
			got, err := h.client.Get(p.url + "/health/ready")
			if err != nil {
				return false
			}
			_ = got.Body.Close()
			return got.StatusCode == http.StatusOK
		})
	}
	return p
}

// run starts a process of this very binary.
func (h *apartHost) run(t *testing.T, role string, number int) *part {
	t.Helper()
	p := &part{role: role, number: number, log: logs.open(t), read: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(),
		roleVariable+"="+role, fmt.Sprintf("%s=%d", numberVariable, number),
		dirVariable+"="+cmp.Or(h.behind[p.name()], h.dir), fmt.Sprintf("%s=%d", shardsVariable, h.shards))
	p.cmd.Stderr = p.log
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if role == "engine" || role == "ingress" {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Errorf("%s did not start: %v; its log is %s", p.name(), err, p.log.Name())
		}
		p.url = strings.TrimSpace(line)
	}
	go func() {
		defer close(p.read)
		_, _ = io.Copy(io.Discard, lines)
	}()
	return p
}

// end sends a signal that ends the part, and waits for it.
func (p *part) end(t *testing.T, s syscall.Signal) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	p.signal(t, s)
	<-p.read
	err := p.cmd.Wait()
	p.cmd = nil
	_ = p.stdin.Close()
	_ = p.log.Close()
	var exit *exec.ExitError
	if errors.As(err, &exit) && s == syscall.SIGKILL && exit.Sys().(syscall.WaitStatus).Signal() == s {
		err = nil
	}
	if err != nil {
		t.Errorf("%s ended with: %v; its log is %s", p.name(), err, p.log.Name())
	}
}

func (p *part) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Errorf("send %v to %s: %v", s, p.name(), err)
	}
}

// pause stops the part wherever it is, and returns when it stands still.
func (p *part) pause(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGSTOP)
	p.paused = true
	testkit.Eventually(t, p.name()+" stands still", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		_, state, found := strings.Cut(string(stat), ") ")
		return err == nil && found && state[0] == 'T'
	})
}

// resume lets a part go on where it stood.
func (p *part) resume(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGCONT)
	p.paused = false
}

func (h *apartHost) stop(t *testing.T) { h.endAll(t, syscall.SIGTERM) }
func (h *apartHost) kill(t *testing.T) { h.endAll(t, syscall.SIGKILL) }

// endAll ends the engine last: the others need it to end cleanly.
func (h *apartHost) endAll(t *testing.T, s syscall.Signal) {
	t.Helper()
	var all sync.WaitGroup
	for _, p := range h.parts {
		all.Go(func() {
			if p.paused {
				p.resume(t)
			}
			p.end(t, s)
		})
	}
	all.Wait()
	h.engine.end(t, s)
}

// quiet is after how long without another answer all are thought to have answered.
const quiet = 200 * time.Millisecond

// answering counts the processes that answer as a service.
func (h *apartHost) answering(t *testing.T, name string) (n int) {
	t.Helper()
	(&trunkline{T: t, dir: h.dir}).withBus(func(b *bus.Bus) {
		inbox := nats.NewInbox()
		answers, err := b.Conn.SubscribeSync(inbox)
		if err == nil {
			err = b.Conn.PublishRequest("$SRV.PING."+name, inbox, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		for {
			answer, err := answers.NextMsg(quiet)
			if err != nil || len(answer.Data) == 0 { // nobody is there
				return
			}
			n++
		}
	})
	return n
}
