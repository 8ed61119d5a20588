package simulation

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock/clocktest"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/services/node"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// attempts is every account's.
const (
	attempts     = streams.DefaultAttempts
	longestLease = 10 * time.Minute
)

// tenant is an account and what the simulation knows of it.
type tenant struct {
	login  string // the header
	name   string
	id     streams.AccountID
	token  string
	limit  int64
	lease  time.Duration
	policy streams.LapsePolicy
}

// world is one run of the product in a bubble.
type world struct {
	t       *testing.T
	rng     *rand.Rand // of the main goroutine only
	dir     string
	shards  int
	model   *model
	tenants []*tenant
	machine clocktest.Stepped // whose clock the parts read, and the engine does not

	networks networks // between the parts and the engine

	longAway bool // it starts after a long time, and the operator says so

	mu     sync.Mutex
	epoch  context.Context // ends with a crash
	client *http.Client
	bus    *bus.Bus
	stop   func()
}

func (w *world) config() node.Config {
	cfg := node.DefaultConfig()
	cfg.Data = w.dir
	cfg.Engine.Durability = "process"
	cfg.Engine.Shards = w.shards
	cfg.Engine.EnqueueMaxBytes, cfg.Engine.StatusMaxBytes = 64<<20, 64<<20
	return cfg
}

// memoryDir gives a directory in memory where the machine has one: the engine
// makes and removes many small files.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "trunkline-simulation-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// start starts the product on the data directory, and returns when it is ready.
func (w *world) start() {
	w.t.Helper()
	w.networks.begin()
	listener := httpx.NewMemory()
	epoch, crash := context.WithCancel(context.Background())
	client := listener.Client()
	ctx, cancel := context.WithCancel(context.Background())
	ended, ready := make(chan error, 1), make(chan node.Started, 1)
	go func() {
		ended <- node.Run(ctx, w.config(), node.Deps{
			Log: zap.NewNop(), Version: "0.0.0-simulated", Listener: listener, Client: client,
			Now: w.machine.Now, ClockIsRight: w.longAway, InProcessOnly: true, Way: w.networks.between, Ready: func(s node.Started) { ready <- s },
		})
	}()
	var started node.Started
	select {
	case started = <-ready:
	case err := <-ended:
		w.t.Fatalf("the product did not start: %v", err)
	}
	conn, err := started.Connect("simulation")
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := bus.New(conn)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.epoch, w.client, w.bus = epoch, client, b
	w.mu.Unlock()
	w.stop = func() {
		crash() // who waits for an answer gets none
		cancel()
		conn.Close()
		client.CloseIdleConnections()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			w.t.Errorf("the product ended: %v", err)
		}
	}
}

func (w *world) now() time.Time { return time.Now() }

// do sends a request to the product as it runs now. Without an answer the
// status is 0.
func (w *world) do(method, path, body string, header map[string]string, within time.Duration) (int, string) {
	w.mu.Lock()
	epoch, client := w.epoch, w.client
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(epoch, within)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, "http://trunkline"+path, strings.NewReader(body))
	if err != nil {
		w.t.Error(err)
		return 0, ""
	}
	for key, value := range header {
		q.Header.Set(key, value)
	}
	a, err := client.Do(q)
	if err != nil {
		return 0, ""
	}
	defer a.Body.Close()
	data, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, ""
	}
	return a.StatusCode, string(data)
}

// operate calls a service as the commands do; ok is false without an answer.
func operate[A, Q any](w *world, subject string, q Q) (a A, ok bool) {
	w.mu.Lock()
	epoch, b := w.epoch, w.bus
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(epoch, 30*time.Second)
	defer cancel()
	a, err := bus.Call[A](ctx, b, subject, q)
	return a, err == nil
}

// found makes the tenants.
func (w *world) found() {
	leases := []time.Duration{30 * time.Second, 2 * time.Minute, longestLease}
	for i, policy := range []streams.LapsePolicy{streams.Retry, streams.Retry, streams.Hold} {
		plan := streams.Plan{Lease: leases[w.rng.IntN(len(leases))], Attempts: attempts, AfterLapse: policy}
		if i == 1 {
			plan.Limit = int64(20 + w.rng.IntN(100))
		}
		w.tenants = append(w.tenants, w.tenant(fmt.Sprint("tenant-", i), plan))
	}
}

// tenant makes an account.
func (w *world) tenant(name string, plan streams.Plan) *tenant {
	w.t.Helper()
	book, err := accounts.Open(context.Background(), w.bus, w.now)
	must(w.t, err)
	made, err := book.Create(context.Background(), accounts.Spec{Name: name, Plan: plan})
	must(w.t, err)
	// A hash that is cheap to check: every crash makes the ingress check it again.
	hash, err := bcrypt.GenerateFromPassword([]byte(name), bcrypt.MinCost)
	must(w.t, err)
	made.Account.Login, made.Account.Password = name, string(hash)
	value, err := json.Marshal(made.Account)
	must(w.t, err)
	bucket, err := w.bus.JS.KeyValue(context.Background(), streams.AccountsBucket)
	must(w.t, err)
	revision, err := bucket.Put(context.Background(), streams.AccountKey(made.Account.ID), value)
	must(w.t, err)
	_, err = book.AwaitSeen(context.Background(), revision)
	must(w.t, err)
	return &tenant{
		login: "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+name)),
		name:  name, id: made.Account.ID, token: made.Token.Reveal(), limit: plan.Limit, lease: plan.Lease, policy: plan.AfterLapse,
	}
}

// crash stops the product in the middle of whatever it does, harms what is
// disposable, and starts it again after a while.
func (w *world) crash() {
	w.model.crashed()
	w.stop()
	projections := filepath.Join(w.dir, "projections")
	harm := w.rng.IntN(5)
	older := filepath.Join(w.dir, "older")
	switch harm {
	case 0: // nothing
	case 1: // all projections are gone
		must(w.t, os.RemoveAll(projections))
		must(w.t, os.MkdirAll(projections, 0o700))
	case 2: // one is gone
		files, err := filepath.Glob(filepath.Join(projections, "*.db"))
		must(w.t, err)
		must(w.t, os.Remove(files[w.rng.IntN(len(files))]))
	case 3: // all are from an earlier day
		if _, err := os.Stat(older); err == nil {
			must(w.t, os.RemoveAll(projections))
			must(w.t, os.CopyFS(projections, os.DirFS(older)))
		}
	case 4: // these are what that earlier day will have been
		must(w.t, os.RemoveAll(older))
		must(w.t, os.CopyFS(older, os.DirFS(projections)))
	}
	time.Sleep(time.Duration(w.rng.IntN(900)) * time.Second * time.Duration(w.rng.IntN(2)))
	w.start()
}

// forgetConsumers deletes the engine's consumers of every lane.
func (w *world) forgetConsumers() {
	w.model.crashed() // what a pull had fetched comes again only later
	for shard := range w.shards {
		stream, err := w.bus.JS.Stream(w.epoch, streams.EnqueueStream(streams.Shard(shard)))
		if err != nil {
			w.t.Error(err)
			return
		}
		names := stream.ConsumerNames(w.epoch)
		for name := range names.Name() {
			if strings.Contains(name, "_any_") {
				_ = stream.DeleteConsumer(w.epoch, name)
			}
		}
	}
}

// verify holds every projection to a rebuilt one.
func (w *world) verify() {
	names := []string{"quota"}
	for shard := range w.shards {
		names = append(names, fmt.Sprint("dispatcher-", shard))
	}
	for _, name := range names {
		if got, ok := operate[request.Verified](w, request.ProjectionVerify(name), request.Verify{}); !ok || got.Difference != "" {
			w.t.Errorf("projection %s: verified %v, difference %q", name, ok, got.Difference)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// quiesce lets everything happen that happens without time passing.
func quiesce() { synctest.Wait() }
