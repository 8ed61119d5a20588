package e2e

import (
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
)

// host is where a Trunkline runs: in this process, in one of its own, in simulated time. One whose parts run apart can
// be another.
type host interface {
	// start runs it on its data directory. It is ready when start returns.
	start(t *testing.T) started
	// stop ends it as SIGTERM does, cleanly.
	stop(t *testing.T)
	// kill ends it as SIGKILL does.
	kill(t *testing.T)
}

type started struct {
	url    string
	token  string // of the account default, on the first start
	client *http.Client
}

// newHost makes a host that runs nothing yet.
type newHost func(dir string, shards int) host

// trunkline is a running Trunkline.
type trunkline struct {
	*testing.T
	host
	dir     string
	shards  streams.Shards
	url     string
	client  *http.Client
	token   string // of the account default
	running bool
}

// launch starts a Trunkline on a fresh directory and ends it with the test.
func launch(t *testing.T, newHost newHost, shards int) *trunkline {
	t.Helper()
	s := &trunkline{T: t, dir: filepath.Join(t.TempDir(), "data"), shards: streams.Shards(shards)}
	s.host = newHost(s.dir, shards)
	t.Cleanup(func() {
		if s.running {
			s.Stop()
		}
	})
	s.Start()
	return s
}

// Start starts it again.
func (s *trunkline) Start() {
	s.Helper()
	begun := s.host.start(s.T)
	s.running = true
	s.url, s.client = begun.url, begun.client
	if begun.token != "" {
		logs.secret(begun.token)
		s.token = begun.token
	}
}

// Stop ends it cleanly.
func (s *trunkline) Stop() {
	s.Helper()
	s.running = false
	s.client.CloseIdleConnections()
	s.host.stop(s.T)
}

// Kill ends it at once.
func (s *trunkline) Kill() {
	s.Helper()
	s.running = false
	s.host.kill(s.T)
	s.client.CloseIdleConnections()
}

// within is the same one in a test of this test.
func (s *trunkline) within(t *testing.T) *trunkline {
	sub := *s
	sub.T = t
	return &sub
}

// projections are the files of all projections.
func (s *trunkline) projections() []string {
	s.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "projections", "*.db"))
	if err != nil || len(files) != 2+int(s.shards) {
		s.Fatalf("got projections %v, %v, want quota's, the releases' and one a shard", files, err)
	}
	return files
}

// remote is a host that commands do not find by a data directory.
type remote interface {
	dial(name string) (*nats.Conn, error)
	access() []string // the flags of a command
}

func (s *trunkline) dial(name string) (*nats.Conn, error) {
	if r, ok := s.host.(remote); ok {
		return r.dial(name)
	}
	return natsd.Dial(s.dir, name)
}

// access gives the flags by which commands reach it.
func (s *trunkline) access() []string {
	if r, ok := s.host.(remote); ok {
		return r.access()
	}
	return []string{"--data", s.dir}
}

// withBus connects to the engine as a command does.
func (s *trunkline) withBus(f func(*bus.Bus)) {
	s.Helper()
	conn, err := s.dial("e2e")
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	b, err := bus.New(conn)
	if err != nil {
		s.Fatal(err)
	}
	f(b)
}

// withAccounts lets f change accounts, and returns once the server acts on the revision that f gives.
func (s *trunkline) withAccounts(f func(*accounts.Accounts) (revision uint64, err error)) {
	s.Helper()
	s.withBus(func(b *bus.Bus) {
		book, err := accounts.Open(s.Context(), b, time.Now)
		if err != nil {
			s.Fatal(err)
		}
		revision, err := f(book)
		if err != nil {
			s.Fatal(err)
		}
		if missing, err := book.AwaitSeen(s.Context(), revision); err != nil || len(missing) > 0 {
			s.Fatalf("accounts not seen by %v: %v", missing, err)
		}
	})
}

// account makes an account without a rate, as change makes it, and gives its token.
func (s *trunkline) account(name string, change func(*streams.Plan)) (token string) {
	s.Helper()
	plan := accounts.DefaultPlan()
	plan.Rate = 0
	if change != nil {
		change(&plan)
	}
	s.withAccounts(func(book *accounts.Accounts) (uint64, error) {
		made, err := book.Create(s.Context(), accounts.Spec{Name: name, Plan: plan})
		token = made.Token.Reveal()
		return made.Revision, err
	})
	logs.secret(token)
	return token
}
