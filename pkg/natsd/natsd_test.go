package natsd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// holdVariable makes the test binary a process that holds a data directory.
const holdVariable = "NATSD_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdVariable); dir != "" {
		hold(dir)
	}
	ats.Register() // the engine's ticker must not be born inside a synctest bubble
	code := m.Run()
	ats.Unregister()
	os.Exit(code)
}

func mustStart(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustStream(t *testing.T, conn *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	config := jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, AllowAtomicPublish: true}
	if _, err := js.CreateOrUpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	return js
}

func TestStart_KeepsStreamsOverRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for want := uint64(1); want <= 3; want++ {
		s := mustStart(t, Options{Dir: dir})
		conn, err := s.Connect("test")
		if err != nil {
			t.Fatal(err)
		}
		ack, err := mustStream(t, conn).Publish(t.Context(), "s.x", nil)
		if err != nil {
			t.Fatal(err)
		}
		if ack.Sequence != want {
			t.Errorf("got sequence %d, want %d", ack.Sequence, want)
		}
		s.Stop()
	}
}

func TestStart_SecondOnSameDirectory(t *testing.T) {
	dir := t.TempDir()
	s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
	_, err := Start(Options{Dir: dir, InProcessOnly: true})
	if err == nil {
		t.Fatal("got a second engine on one data directory")
	}
	for _, want := range []string{dir, "in use by another process", fmt.Sprintf("pid %d", os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to name %q", err, want)
		}
	}
	s.Stop()
	mustStart(t, Options{Dir: dir, InProcessOnly: true}).Stop()
}

// hold starts an engine, stores a message, says so, and waits to be killed.
func hold(dir string) {
	s, err := Start(Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	conn, err := s.Connect("holder")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	js, err := jetstream.New(conn)
	if err == nil {
		_, err = js.CreateStream(context.Background(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, AllowAtomicPublish: true})
	}
	if err == nil {
		_, err = js.Publish(context.Background(), "s.x", nil)
	}
	fmt.Println("holding", err)
	select {}
}

// A directory that another process holds is refused, naming it; once it is
// killed the directory is free, and holds what was acknowledged.
func TestStart_AfterKilledProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), holdVariable+"="+dir)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "holding <nil>\n" {
		t.Fatalf("other process: %q, %v", line, err)
	}
	_, err = Start(Options{Dir: dir})
	if want := fmt.Sprintf("pid %d", other.Process.Pid); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want it to name %s", err, want)
	}
	conn, err := Dial(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait()
	if _, err := Dial(dir, "test"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("got %v, want ErrNotRunning", err)
	}
	s := mustStart(t, Options{Dir: dir})
	defer s.Stop()
	conn, err = s.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	ack, err := mustStream(t, conn).Publish(t.Context(), "s.x", nil)
	if err != nil || ack.Sequence != 2 {
		t.Errorf("got %v, %v, want the second message", ack, err)
	}
}

func TestStop_Twice(t *testing.T) {
	dir := t.TempDir()
	s := mustStart(t, Options{Dir: dir})
	s.Stop()
	next := mustStart(t, Options{Dir: dir})
	defer next.Stop()
	s.Stop() // must not touch what is another's now
	conn, err := Dial(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestStart_RefusesUnknownDurability(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := Start(Options{Dir: dir, Durability: "fast"}); err == nil {
		t.Error("got an engine with durability fast")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want no directory left behind", err)
	}
}

func TestStart_BrokenEngineIsAnErrorNotAnExit(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, engineDir), 0o700); err != nil {
		t.Fatal(err)
	}
	// The engine wants a directory of this name.
	if err := os.WriteFile(filepath.Join(dir, engineDir, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Options{Dir: dir, InProcessOnly: true}); err == nil || !strings.Contains(err.Error(), "JetStream") {
		t.Errorf("got %v, want the engine's own reason", err)
	}
	if err := os.Remove(filepath.Join(dir, engineDir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	mustStart(t, Options{Dir: dir, InProcessOnly: true}).Stop() // the lock was given back
}

func TestStart_NothingIsReadableByOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(dir, engineDir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := mustStart(t, Options{Dir: dir})
	defer s.Stop()
	conn, err := s.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mustStream(t, conn).Publish(t.Context(), "s.x", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", engineDir, keysDir, lockFile, addressFile, keysDir + "/" + keyFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm() & 0o077; got != 0 {
			t.Errorf("%s: got permissions %v for others", name, got)
		}
	}
}

func strangersKey(t *testing.T) nats.Option {
	t.Helper()
	stranger, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := stranger.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return nats.Nkey(public, stranger.Sign)
}

func wantNoConnection(t *testing.T, url string, opts ...nats.Option) {
	t.Helper()
	if conn, err := nats.Connect(url, opts...); err == nil {
		conn.Close()
		t.Error("got a connection")
	}
}

func TestServer_OnlyTheKeyOpensIt(t *testing.T) {
	s := mustStart(t, Options{Dir: t.TempDir()})
	defer s.Stop()
	wantNoConnection(t, s.URL())
	wantNoConnection(t, s.URL(), strangersKey(t))
}

func TestServer_OnlyTheKeyOpensItFromInside(t *testing.T) {
	dir := t.TempDir()
	// The engine takes 10 s to let go of a pipe whose other end reads no more.
	synctest.Test(t, func(t *testing.T) {
		s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
		defer s.Stop()
		wantNoConnection(t, "", nats.InProcessServer(s.server))
		wantNoConnection(t, "", nats.InProcessServer(s.server), strangersKey(t))
	})
}

func TestServer_ListensOnLoopbackOnly(t *testing.T) {
	s := mustStart(t, Options{Dir: t.TempDir()})
	defer s.Stop()
	if !strings.HasPrefix(s.URL(), "nats://127.0.0.1:") {
		t.Errorf("got %s, want an address on 127.0.0.1", s.URL())
	}
	inside := mustStart(t, Options{Dir: t.TempDir(), InProcessOnly: true})
	defer inside.Stop()
	if inside.URL() != "" || inside.server.Addr() != nil {
		t.Errorf("got listener %v, want none", inside.server.Addr())
	}
}

func TestDial(t *testing.T) {
	dir := t.TempDir()
	if _, err := Dial(dir, "test"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("before start: got %v, want ErrNotRunning", err)
	}
	s := mustStart(t, Options{Dir: dir})
	conn, err := Dial(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	mustStream(t, conn)
	conn.Close()
	address, err := os.ReadFile(filepath.Join(dir, addressFile))
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if _, err := Dial(dir, "test"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after stop: got %v, want ErrNotRunning", err)
	}
	// A killed server leaves its address behind.
	if err := os.WriteFile(filepath.Join(dir, addressFile), address, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(dir, "test"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after a kill: got %v, want ErrNotRunning", err)
	}
}

func TestDial_RefusesWhatIsNotItsServer(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	s := mustStart(t, Options{Dir: dir})
	defer s.Stop()
	mustStart(t, Options{Dir: other}).Stop() // makes its key
	if err := writeAddress(other, s.URL()); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(other, "test"); err == nil || !strings.Contains(err.Error(), "another data directory") {
		t.Errorf("foreign key: got %v", err)
	}
	if err := os.Chmod(filepath.Join(dir, keysDir, keyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(dir, "test"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("open key: got %v", err)
	}
}

func TestStop_LeavesNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := mustStart(t, Options{Dir: t.TempDir()})
	conn, err := s.Connect("forgotten by its user")
	if err != nil {
		t.Fatal(err)
	}
	js := mustStream(t, conn)
	if _, err := js.CreateConsumer(t.Context(), "S", jetstream.ConsumerConfig{Durable: "d", MemoryStorage: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Subscribe("x", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	goleak.VerifyNone(t, before)
}

// The engine with its consumers and timers runs in simulated time.
func TestServer_InSimulatedTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
		defer s.Stop()
		conn, err := s.Connect("test")
		if err != nil {
			t.Fatal(err)
		}
		js := mustStream(t, conn)
		ctx := context.Background()
		if _, err := js.Publish(ctx, "s.x", nil); err != nil {
			t.Fatal(err)
		}
		consumer, err := js.CreateConsumer(ctx, "S", jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 10 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		for want := uint64(1); want <= 2; want++ {
			msg, err := consumer.Next(jetstream.FetchMaxWait(11 * time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			meta, err := msg.Metadata()
			if err != nil {
				t.Fatal(err)
			}
			if meta.NumDelivered != want {
				t.Errorf("got delivery %d, want %d", meta.NumDelivered, want)
			}
		}
	})
}

func TestLogBridge_FatalIsKeptNotObeyed(t *testing.T) {
	core, lines := observer.New(zap.DebugLevel)
	b := &logBridge{log: zap.New(core).Sugar()}
	b.Fatalf("no room for %s", "streams") //nolint:revive // this Fatalf returns
	b.Fatalf("second")
	if got, want := b.fatal(), "no room for streams"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := lines.FilterMessage("no room for streams").Len(); got != 1 {
		t.Errorf("got %d log lines, want 1", got)
	}
}

func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	for b.Loop() {
		s, err := Start(Options{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		s.Stop()
	}
}
