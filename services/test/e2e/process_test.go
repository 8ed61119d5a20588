package e2e

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// built is the command, as it is shipped but for the race detector.
var built = binary{}

type binary struct {
	dir  string
	once sync.Once
	err  error
}

func (b *binary) path(t testing.TB) string {
	t.Helper()
	path := filepath.Join(b.dir, "trunkline")
	b.once.Do(func() {
		args := []string{"build", "-o", path}
		if raceEnabled {
			args = append(args, "-race")
		}
		out, err := exec.Command("go", append(args, "../../cmd/trunkline")...).CombinedOutput()
		if err != nil {
			b.err = fmt.Errorf("build the command: %w: %s", err, out)
		}
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return path
}

// processHost runs Trunkline in a process of its own.
type processHost struct {
	dir    string
	shards int
	level  string // of its log, unless it is debug
	cmd    *exec.Cmd
	log    *os.File
	read   chan struct{} // closed when all of standard output has been read
}

// process runs Trunkline as people do, in a process of its own.
func process(dir string, shards int) host { return &processHost{dir: dir, shards: shards} }

// pid is the server's process, while it runs.
func (h *processHost) pid() int { return h.cmd.Process.Pid }

// pid is the process of a server that has one of its own.
func (s *trunkline) pid() int { return s.host.(interface{ pid() int }).pid() }

// launchMeasured starts a server of one shard in a process of its own, whose memory and time are looked at, and gives its
// process.
func launchMeasured(t *testing.T, newHost newHost) (s *trunkline, pid int) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector takes memory and time of its own")
	}
	s = launch(t, newHost, 1)
	return s, s.pid()
}

// command prepares a run of the command with settings of its own only.
func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(built.path(t), args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "TMPDIR=" + cmd.Dir}
	return cmd
}

func (h *processHost) start(t *testing.T) started {
	t.Helper()
	begun, err := h.ready(h.begin(t, h.serve(t)))
	if err != nil {
		t.Fatalf("the server did not start: %v; its log is %s", err, h.log.Name())
	}
	return begun
}

// serve prepares the command that serves.
func (h *processHost) serve(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := command(t, "serve", "--data", h.dir, "--http", "127.0.0.1:0", "--log-level", cmp.Or(h.level, "debug"))
	cmd.Env = append(cmd.Env, fmt.Sprintf("TRUNKLINE_ENGINE_SHARDS=%d", h.shards))
	return cmd
}

// begin starts the command and gives what it prints.
func (h *processHost) begin(t *testing.T, cmd *exec.Cmd) io.Reader {
	t.Helper()
	h.cmd, h.log = cmd, logs.open(t)
	h.cmd.Stderr = h.log
	out, err := h.cmd.StdoutPipe()
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ready returns when the server is ready, or has ended with an error.
func (h *processHost) ready(out io.Reader) (started, error) {
	h.read = make(chan struct{})
	begun, rest, err := readBanner(out)
	if err != nil {
		close(h.read)
		return started{}, errors.Join(err, h.wait())
	}
	go func() {
		defer close(h.read)
		_, _ = io.Copy(io.Discard, rest)
	}()
	begun.client = newClient()
	return begun, nil
}

// readBanner reads what the server prints once it is ready.
func readBanner(out io.Reader) (begun started, rest io.Reader, err error) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return begun, lines, err
		}
		line = strings.TrimSpace(line)
		if url, found := strings.CutPrefix(line, "Trunkline is ready at "); found {
			begun.url = url
		}
		if len(line) == 64 {
			begun.token = line
		}
		if strings.Contains(line, "/status") || strings.Contains(line, "account token") { // its last line
			return begun, lines, nil
		}
	}
}

func (h *processHost) wait() error {
	<-h.read
	err := h.cmd.Wait()
	h.cmd = nil
	return errors.Join(err, h.log.Close())
}

func (h *processHost) stop(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	log := h.log.Name()
	if err := h.wait(); err != nil {
		t.Errorf("the server ended with: %v; its log is %s", err, log)
	}
}

func (h *processHost) kill(t *testing.T) {
	t.Helper()
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var killed *exec.ExitError
	if err := h.wait(); !errors.As(err, &killed) || killed.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the killed server ended with: %v", err)
	}
}
