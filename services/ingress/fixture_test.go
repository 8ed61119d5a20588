package ingress_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// options say what a fixture is. The zero value is one shard with room for everything.
type options struct {
	Shards          streams.Shards
	EnqueueMaxBytes int64
	StopGrace       time.Duration
	Config          func(*ingress.Config)
	Now             func() time.Time
	Memory          *httpx.Memory // instead of a socket, for simulated time
}

// fixture is a running ingress on a real engine, with stand-ins for quota and dispatcher that are just real enough
// to answer it.
type fixture struct {
	Bus        *bus.Bus
	URL        string // of the HTTP side
	Client     *http.Client
	Quota      *quota
	Dispatcher *dispatcher
	Version    *version
	Logs       *observer.ObservedLogs // everything logged, from debug on
	Metrics    *prometheus.Registry
	Deployment streams.Deployment

	StopIngress    func()
	StopDispatcher func()

	t   testing.TB
	dir string
	o   options
	log *zap.Logger
	end func()
}

// start runs an ingress until the test ends.
func start(t testing.TB, o options) *fixture {
	t.Helper()
	if o.Shards == 0 {
		o.Shards = 1
	}
	if o.EnqueueMaxBytes == 0 {
		o.EnqueueMaxBytes = 1 << 30
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	core, logs := observer.New(zapcore.DebugLevel)
	f := &fixture{
		Logs:       logs,
		Deployment: streams.Deployment{Shards: o.Shards, Replicas: 1, EnqueueMaxBytes: o.EnqueueMaxBytes, StatusMaxBytes: 1 << 30},
		t:          t,
		dir:        t.TempDir(),
		o:          o,
		log:        zap.New(core),
	}
	t.Cleanup(func() { f.end() })
	f.run(true)
	return f
}

// Restart stops everything, the engine too, and starts it again on the same data.
func (f *fixture) Restart() {
	f.t.Helper()
	f.end()
	f.end = func() {}
	f.run(false)
}

func (f *fixture) run(fresh bool) {
	f.t.Helper()
	server, b := bustest.Start(f.t, f.dir)
	f.end = server.Stop
	if err := streams.Ensure(context.Background(), b.JS, f.Deployment, fresh); err != nil {
		f.t.Fatal(err)
	}
	if !fresh {
		f.freeClaims(b)
	}
	listener := f.listen()
	f.Bus, f.URL, f.Client = b, "http://"+listener.Addr().String(), &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	if f.o.Memory != nil {
		f.Client = f.o.Memory.Client()
	}
	f.Quota, f.Dispatcher, f.Metrics = newQuota(b), newDispatcher(b, f.o.Shards), prometheus.NewRegistry()
	f.Version = newVersion(b)
	stopQuota, stopVersion := f.service(f.Quota), f.service(f.Version)
	f.StopDispatcher = f.service(f.Dispatcher)
	cfg := ingress.DefaultConfig()
	if f.o.Config != nil {
		f.o.Config(&cfg)
	}
	if f.o.StopGrace > 0 {
		cfg.StopGrace = f.o.StopGrace
	}
	f.StopIngress = f.service(ingress.New(cfg, f.deps(b, listener)))
	f.end = func() {
		f.Client.CloseIdleConnections()
		f.StopIngress()
		f.StopDispatcher()
		stopQuota()
		stopVersion()
		server.Stop()
	}
	f.waitReady()
}

func (f *fixture) listen() net.Listener {
	f.t.Helper()
	if f.o.Memory != nil {
		return f.o.Memory
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	return listener
}

// service runs s until it is stopped.
func (f *fixture) service(s service.Service) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- service.Run(ctx, s) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			f.t.Errorf("run: %v", err)
		}
	})
}

func (f *fixture) deps(b *bus.Bus, listener net.Listener) ingress.Deps {
	return ingress.Deps{
		Deps:     service.Deps{Bus: b, Dir: filepath.Join(f.dir, "projections"), Log: f.log, Metrics: f.Metrics, Now: f.o.Now},
		Shards:   f.o.Shards,
		Listener: listener,
		Version:  "0.0.0",
		Gatherer: f.Metrics,
	}
}

// freeClaims does what a server that embeds its engine does: nobody else can hold a claim.
func (f *fixture) freeClaims(b *bus.Bus) {
	stream, err := b.JS.Stream(context.Background(), "KV_"+streams.ClaimsBucket)
	if err == nil {
		err = stream.Purge(context.Background())
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// waitReady asks until the ingress is ready.
func (f *fixture) waitReady() {
	f.t.Helper()
	for {
		// The version service only warns.
		status, body := f.Get("/health/ready")
		if status == http.StatusOK && !strings.Contains(body, `"status":"warn"`) || f.t.Failed() {
			return
		}
		if f.o.Memory != nil {
			time.Sleep(time.Millisecond) // simulated time stands still while somebody is at work
		}
	}
}

// Token makes an account, of which change may alter what is stored, and gives its token. An account of that name
// that is there already is replaced.
func (f *fixture) Token(name string, change func(*streams.Account)) string {
	f.t.Helper()
	token := strings.Repeat("0123456789abcdef", 4)[:64-len(name)] + name
	f.Account(name, func(a *streams.Account) {
		a.Tokens = []streams.Token{{Hash: streams.HashToken(token)}}
		if change != nil {
			change(a)
		}
	})
	return token
}

// Account stores an account and returns when the ingress acts on it.
func (f *fixture) Account(name string, change func(*streams.Account)) {
	f.t.Helper()
	ctx := context.Background()
	account := streams.Account{ID: streams.AccountIDOf(name), Name: name}
	change(&account)
	value, err := json.Marshal(account)
	if err != nil {
		f.t.Fatal(err)
	}
	bucket, err := f.Bus.JS.KeyValue(ctx, streams.AccountsBucket)
	if err != nil {
		f.t.Fatal(err)
	}
	revision, err := bucket.Put(ctx, streams.AccountKey(account.ID), value)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := bus.Call[request.Saw](ctx, f.Bus, request.IngressSeen(0), request.Seen{Revision: revision}); err != nil {
		f.t.Fatal(err)
	}
}

// Stored counts the messages under a subject of an ENQUEUE or STATUS stream.
func (f *fixture) Stored(stream, subject string) int {
	f.t.Helper()
	handle, err := f.Bus.JS.Stream(context.Background(), stream)
	if err != nil {
		f.t.Fatal(err)
	}
	info, err := handle.Info(context.Background(), jetstream.WithSubjectFilter(subject))
	if err != nil {
		f.t.Fatal(err)
	}
	n := 0
	for _, count := range info.State.Subjects {
		n += int(count)
	}
	return n
}

// Post sends a body and gives the answer's status and body.
func (f *fixture) Post(path, body string, header ...string) (int, string) {
	f.t.Helper()
	r, err := http.NewRequest(http.MethodPost, f.URL+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return f.do(r)
}

// Get asks for a path and gives the answer's status and body.
func (f *fixture) Get(path string) (int, string) {
	f.t.Helper()
	r, err := http.NewRequest(http.MethodGet, f.URL+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.do(r)
}

func (f *fixture) do(r *http.Request) (int, string) {
	f.t.Helper()
	answer, err := f.Client.Do(r)
	if err != nil {
		f.t.Error(err)
		return 0, ""
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		f.t.Error(err)
	}
	return answer.StatusCode, string(body)
}
