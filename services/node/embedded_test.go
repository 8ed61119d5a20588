package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

func TestMain(m *testing.M) {
	// The engine keeps one clock for the whole process.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// simulate runs f in simulated time, on a day when there are ids.
func simulate(t *testing.T, f func(*testing.T)) {
	t.Helper()
	bustest.SimulateFrom(t, time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), f)
}

// server is a running server in simulated time.
type server struct {
	Started
	*http.Client
	stop func()
}

func settings(dir string) Config {
	cfg := DefaultConfig()
	cfg.Data = dir
	cfg.Engine.Durability = "process"
	return cfg
}

// start starts a server on dir, and waits until it is ready.
func start(t *testing.T, dir string) *server {
	t.Helper()
	listener := httpx.NewMemory()
	s := &server{Client: listener.Client()}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan Started, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, settings(dir), Deps{
			Log: testLog(t), Version: "0.0.0-test", Listener: listener, Client: s.Client, InProcessOnly: true,
			Ready: func(s Started) { ready <- s },
		})
	}()
	s.stop = func() {
		s.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with: %v", err)
		}
	}
	select {
	case s.Started = <-ready:
	case err := <-ended:
		t.Fatalf("the server did not start: %v", err)
	}
	return s
}

// testLog makes a log in memory, in which no secret may be.
func testLog(t *testing.T) *zap.Logger {
	t.Helper()
	var b bytes.Buffer
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(&b)), zap.DebugLevel)
	t.Cleanup(func() {
		path := os.Getenv("TRUNKLINE_TEST_LOG")
		if path == "" {
			return
		}
		file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Error(err)
			return
		}
		_, err = file.Write(b.Bytes())
		if err := errors.Join(err, file.Close()); err != nil {
			t.Error(err)
		}
	})
	return zap.New(core)
}

// call makes a request of the queue dialect and gives the answer's body.
func (s *server) call(t *testing.T, method, token, path, body string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/api/"+token+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: got status %d: %s", path, response.StatusCode, answer)
	}
	return string(answer)
}

func (s *server) queue(t *testing.T, token, text string) {
	t.Helper()
	s.call(t, http.MethodPost, token, "/queue", fmt.Sprintf(`[{"phone":"+1234567890","message":%q}]`, text))
}

// pull gives the texts that a phone gets, and their hashes.
func (s *server) pull(t *testing.T, token, query string) (texts, hashes []string) {
	t.Helper()
	var page []struct{ Text, Hash string }
	if err := json.Unmarshal([]byte(s.call(t, http.MethodGet, token, "/get_messages"+query, "")), &page); err != nil {
		t.Fatal(err)
	}
	for _, m := range page {
		texts, hashes = append(texts, m.Text), append(hashes, m.Hash)
	}
	return texts, hashes
}

func TestFirstStartAndTheNext(t *testing.T) {
	simulate(t, func(t *testing.T) {
		dir := t.TempDir()
		first := start(t, dir)
		token := first.Token.Reveal()
		if len(token) != 64 {
			t.Fatalf("got a token of %d characters on the first start, want 64", len(token))
		}
		first.queue(t, token, "secret-text-1")
		first.queue(t, token, "secret-text-2")
		got, _ := first.pull(t, token, "?limit=1")
		if diff := cmp.Diff([]string{"secret-text-1"}, got); diff != "" {
			t.Errorf("first pull (-want +got):\n%s", diff)
		}
		first.stop()

		second := start(t, dir)
		defer second.stop()
		if second.Token != "" {
			t.Error("got a token on the second start, want none")
		}
		got, _ = second.pull(t, token, "")
		if diff := cmp.Diff([]string{"secret-text-2"}, got); diff != "" {
			t.Errorf("pull after a restart (-want +got):\n%s", diff)
		}
	})
}

// What a phone took with it goes to another when its lease has lapsed.
func TestLapse(t *testing.T) {
	simulate(t, func(t *testing.T) {
		s := start(t, t.TempDir())
		defer s.stop()
		token := s.Token.Reveal()
		s.queue(t, token, "secret-text-3")
		if _, hashes := s.pull(t, token, "?device=lost"); len(hashes) != 1 {
			t.Fatalf("got %d messages, want 1", len(hashes))
		}
		if texts, _ := s.pull(t, token, "?device=other"); len(texts) != 0 {
			t.Errorf("got %d messages while they are leased, want none", len(texts))
		}
		time.Sleep(streams.DefaultLease + time.Minute)
		texts, hashes := s.pull(t, token, "?device=other")
		if diff := cmp.Diff([]string{"secret-text-3"}, texts); diff != "" {
			t.Fatalf("pull after the lease (-want +got):\n%s", diff)
		}
		got := s.call(t, http.MethodPost, token, "/status", fmt.Sprintf(`{"device":"other","messages":[{"hash":%q,"status":2}]}`, hashes[0]))
		if want := `{"ok":true,"updated":1}`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// Streams that were there once are never created again.
func TestMissingStream(t *testing.T) {
	simulate(t, func(t *testing.T) {
		dir := t.TempDir()
		start(t, dir).stop()
		deleteStream(t, dir, streams.StatusStream(0))

		listener := httpx.NewMemory()
		err := Run(t.Context(), settings(dir), Deps{Log: testLog(t), Version: "0.0.0-test", Listener: listener, InProcessOnly: true})
		if err == nil || !strings.Contains(err.Error(), "STATUS_0 is missing") {
			t.Errorf("got error %v, want one that names the missing stream", err)
		}
	})
}

// A first start that broke off is made good by the next, whose account's token
// nobody has seen.
func TestFirstStartBrokenOff(t *testing.T) {
	simulate(t, func(t *testing.T) {
		dir := t.TempDir()
		start(t, dir).stop()
		if err := os.Remove(filepath.Join(dir, "engine", createdFile)); err != nil {
			t.Fatal(err)
		}
		s := start(t, dir)
		defer s.stop()
		if s.Token != "" {
			t.Error("got a token for an account that was there, want none")
		}
		if _, err := os.Stat(filepath.Join(dir, "engine", createdFile)); err != nil {
			t.Error(err)
		}
	})
}

// A stream that differs from the settings is left as it is, and serves.
func TestStreamsThatDiffer(t *testing.T) {
	simulate(t, func(t *testing.T) {
		dir := t.TempDir()
		start(t, dir).stop()
		engine, b := bustest.Start(t, dir)
		defer engine.Stop()
		cfg := settings(dir)
		cfg.Engine.EnqueueMaxBytes *= 2
		core, logged := observer.New(zap.WarnLevel)
		if err := ensure(t.Context(), cfg, zap.New(core), b, false); err != nil {
			t.Fatal(err)
		}
		if got := logged.FilterField(zap.String("stream", "ENQUEUE_0")).Len(); got != 1 || logged.Len() != 1 {
			t.Errorf("got warnings %v, want one about ENQUEUE_0", logged.All())
		}
		cfg.Engine.Shards = 2
		if err := ensure(t.Context(), cfg, zap.NewNop(), b, false); err == nil || !strings.Contains(err.Error(), "began with 1 shards") {
			t.Errorf("other shards: got error %v, want one that says what it began with", err)
		}
	})
}

func deleteStream(t *testing.T, dir, name string) {
	t.Helper()
	engine, b := bustest.Start(t, dir)
	defer engine.Stop()
	if err := b.JS.DeleteStream(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

func TestDataDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	engine, err := natsd.Start(natsd.Options{Dir: dir, InProcessOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Stop()
	err = Run(t.Context(), settings(dir), Deps{Log: zap.NewNop(), Version: "0.0.0-test", Listener: httpx.NewMemory()})
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got error %v, want one that names the directory", err)
	}
}

func TestAddressInUse(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := settings(t.TempDir())
	cfg.HTTP = taken.Addr().String()
	err = Run(t.Context(), cfg, Deps{Log: zap.NewNop(), Version: "0.0.0-test"})
	if err == nil || !strings.Contains(err.Error(), "--http") {
		t.Errorf("got error %v, want one that says what to do", err)
	}
}

func TestBanner(t *testing.T) {
	var first, later strings.Builder
	if err := Banner(&first, Started{URL: "http://127.0.0.1:8080", Token: "abc"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"http://127.0.0.1:8080/api/abc/queue", "http://127.0.0.1:8080/api/abc/get_messages", "http://127.0.0.1:8080/api/abc/status"} {
		if strings.Count(first.String(), want) != 1 {
			t.Errorf("got a first banner without %s:\n%s", want, first.String())
		}
	}
	if err := Banner(&later, Started{URL: "http://127.0.0.1:8080"}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(later.String(), "trunkline account token default") {
		t.Errorf("got a later banner that says no way to a token:\n%s", later.String())
	}
}

func TestReachable(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1:80", "0.0.0.0:80": "127.0.0.1:80", "[::]:80": "127.0.0.1:80", "[::1]:80": "[::1]:80",
	} {
		tcp := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))
		if got := reachable(tcp); got != want {
			t.Errorf("reachable %s: got %s, want %s", addr, got, want)
		}
	}
}
