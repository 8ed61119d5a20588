package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	readyWithin = 5 * time.Second // far more than it takes, for machines under load
	idleMemory  = 60 << 20        // bytes
)

// A server is there at once and takes little of the machine.
func TestStart(t *testing.T) {
	eachShardsAlone(t, func(t *testing.T, shards int) {
		built.path(t)
		begun := time.Now()
		s := launch(t, process, shards)
		took := time.Since(begun)
		resident := s.resident()
		t.Logf("ready in %v, %.1f MB resident", took, float64(resident)/(1<<20))
		if took > readyWithin {
			t.Errorf("ready after %v, want at most %v", took, readyWithin)
		}
		// With the race detector everything takes several times the memory.
		if resident > idleMemory && !raceEnabled {
			t.Errorf("got %d bytes resident, want at most %d", resident, idleMemory)
		}
	})
}

var residentLine = regexp.MustCompile(`(?m)^VmRSS:\s+([0-9]+) kB$`)

// resident is how much memory the server's process takes.
func (s *trunkline) resident() int {
	s.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid()))
	if err != nil {
		s.Fatal(err)
	}
	found := residentLine.FindSubmatch(status)
	if found == nil {
		s.Fatal("the process's status does not say how much memory it takes")
	}
	kB, err := strconv.Atoi(string(found[1]))
	if err != nil {
		s.Fatal(err)
	}
	return kB << 10
}

// refusedStart runs a server that has to refuse to start, and gives the one line that it says.
func refusedStart(t *testing.T, args ...string) string {
	t.Helper()
	cmd := command(t, append([]string{"serve", "--http", "127.0.0.1:0"}, args...)...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	line := problems.String()
	if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") || out.Len() > 0 {
		t.Errorf("got output %q and %q, want one line of what is wrong", out.String(), line)
	}
	return strings.TrimSpace(line)
}

// Two servers never share a data directory; the first is not disturbed.
func TestStart_DirectoryInUse(t *testing.T) {
	t.Parallel()
	for name, newHost := range map[string]newHost{"inside": inside, "process": process} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := launch(t, newHost, 1)
			a := s.api(s.token)
			a.queue(t, "shop", 1)
			if line := refusedStart(t, "--data", s.dir); !strings.HasPrefix(line, "trunkline: ") || !strings.Contains(line, s.dir) {
				t.Errorf("got %q, want a line that names the directory", line)
			}
			a.mustPull(t, "phone", 10, 0, 1)
			s.command("account", "list")
		})
	}
}

// A setting that nobody knows stops the start, before anything is made.
func TestStart_UnknownSetting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, data := filepath.Join(dir, "trunkline.yaml"), filepath.Join(dir, "data")
	if err := os.WriteFile(file, []byte("log:\n  level: info\nengine:\n  shards: 1\n  shard: 4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	line := refusedStart(t, "--config", file, "--data", data)
	if !strings.Contains(line, file+":5:") || !strings.Contains(line, "engine.shard") {
		t.Errorf("got %q, want a line that names the file, its line 5 and the key", line)
	}
	if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory: got %v, want none", err)
	}
}

// The number of shards is for ever.
func TestStart_OtherShards(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 4)
	s.Stop()
	if line := refusedStart(t, "--data", s.dir); !strings.Contains(line, "began with 4 shards") {
		t.Errorf("got %q, want a line that says how many there are", line)
	}
	s.Start()
}
