package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// server is a script's server process.
type server struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	log    bytes.Buffer
}

type serverKey struct{}

func serverOf(ts *testscript.TestScript) *server { return ts.Value(serverKey{}).(*server) }

// startServer starts the command's server on ./data with more flags, and waits
// until it has printed that it is ready.
func startServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("use exec trunkline serve for a start that fails")
	}
	s := serverOf(ts)
	if s.cmd != nil {
		ts.Fatalf("the server runs already")
	}
	s.cmd = exec.Command(commandPath(ts), append([]string{"serve", "--data", "data", "--http", "127.0.0.1:0"}, args...)...)
	s.cmd.Dir = ts.MkAbs(".")
	s.cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME")}
	s.cmd.Stderr = &s.log
	out, err := s.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	ts.Defer(func() {
		if s.cmd != nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
	})
	s.stdout = bufio.NewReader(out)
	s.readBanner(ts)
}

// readBanner reads what the server prints once it is ready.
func (s *server) readBanner(ts *testscript.TestScript) {
	var banner strings.Builder
	for {
		line, err := s.stdout.ReadString('\n')
		if err != nil {
			_ = s.cmd.Wait()
			s.cmd = nil
			ts.Fatalf("the server ended before it was ready: %s", s.log.String())
		}
		banner.WriteString(line)
		if url, found := strings.CutPrefix(line, "Trunkline is ready at "); found {
			ts.Setenv("URL", strings.TrimSpace(url))
			ts.Setenv("ADDRESS", strings.TrimPrefix(strings.TrimSpace(url), "http://"))
		}
		if len(line) == 65 { // a token and its line's end
			ts.Setenv("TOKEN", strings.TrimSpace(line))
		}
		if strings.Contains(line, "/status") || strings.Contains(line, "account token") {
			ts.Check(os.WriteFile(ts.MkAbs("banner"), []byte(banner.String()), 0o600))
			return
		}
	}
}

func stopServer(ts *testscript.TestScript, _ bool, _ []string) {
	s := serverOf(ts)
	ts.Check(s.cmd.Process.Signal(syscall.SIGTERM))
	s.end(ts, true)
}

func killServer(ts *testscript.TestScript, _ bool, _ []string) {
	s := serverOf(ts)
	ts.Check(s.cmd.Process.Kill())
	s.end(ts, false)
}

// end waits for the process and leaves its log in the file log.
func (s *server) end(ts *testscript.TestScript, clean bool) {
	err := s.cmd.Wait()
	if clean && err != nil {
		ts.Fatalf("the server ended with %v: %s", err, s.log.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs("log"), s.log.Bytes(), 0o600))
	if path := os.Getenv("TRUNKLINE_TEST_LOG"); path != "" {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		ts.Check(err)
		_, err = file.Write(s.log.Bytes())
		ts.Check(errors.Join(err, file.Close()))
	}
	s.cmd = nil
	s.log.Reset()
}

// inFlight sends the head of a request, tells the server to stop, and calls the
// rest once the server takes no more connections.
func (s *server) inFlight(ts *testscript.TestScript, path string, length int, rest func(net.Conn)) {
	address := ts.Getenv("ADDRESS")
	conn, err := net.Dial("tcp", address)
	ts.Check(err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", path, address, length)
	ts.Check(err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	ts.Check(err)
	if !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		ts.Fatalf("got %q, want the server to ask for the body", line)
	}
	ts.Check(s.cmd.Process.Signal(syscall.SIGTERM))
	for {
		more, err := net.Dial("tcp", address)
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err == nil {
			_ = more.Close()
		}
	}
	rest(conn)
}

// stopAcross stops the server in the middle of a request and prints its answer:
// PATH BODY.
func stopAcross(ts *testscript.TestScript, _ bool, args []string) {
	s := serverOf(ts)
	s.inFlight(ts, args[0], len(args[1]), func(conn net.Conn) {
		_, err := io.WriteString(conn, args[1])
		ts.Check(err)
		answer, err := io.ReadAll(conn)
		ts.Check(err)
		_, err = ts.Stdout().Write(answer)
		ts.Check(err)
	})
	s.end(ts, true)
}

// stopTwice tells the server twice to stop, in the middle of a request.
func stopTwice(ts *testscript.TestScript, _ bool, args []string) {
	s := serverOf(ts)
	s.inFlight(ts, args[0], 1, func(net.Conn) {
		ended := make(chan error)
		go func() { ended <- s.cmd.Wait() }()
		// One that comes together with the first is not a second one yet.
		again := time.NewTicker(10 * time.Millisecond)
		defer again.Stop()
		var err error
		for running := true; running; {
			select {
			case <-again.C:
				_ = s.cmd.Process.Signal(syscall.SIGINT)
			case err = <-ended:
				running = false
			}
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
			ts.Fatalf("the server ended with %v, want the second signal to end it", err)
		}
		s.cmd = nil
	})
}

func commandPath(ts *testscript.TestScript) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		path := filepath.Join(dir, "trunkline")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	ts.Fatalf("the command is not on PATH")
	return ""
}

func callHTTP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: http METHOD PATH [BODY]")
	}
	request, err := http.NewRequest(args[0], ts.Getenv("URL")+args[1], strings.NewReader(strings.Join(args[2:], " ")))
	ts.Check(err)
	response, err := http.DefaultClient.Do(request)
	ts.Check(err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	ts.Check(err)
	_, err = fmt.Fprintf(ts.Stdout(), "%d %s\n", response.StatusCode, answer)
	ts.Check(err)
}

func match(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: match NAME REGEXP")
	}
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) < 2 {
		ts.Fatalf("stdout does not match %s", args[1])
	}
	ts.Setenv(args[0], found[1])
}
