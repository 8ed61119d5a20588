package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/operator"
)

func init() { clustered = onCluster }

// clusterHost runs three nodes of NATS, and over them quota with a standby, two dispatchers and two ingresses behind a
// proxy, each in a process of its own: as configs/cluster has it, with keys, permissions and TLS.
type clusterHost struct {
	dir    string
	shards int
	counts []kind
	binary func(testing.TB, string) string // the command that a part runs
	ports  []int
	nodes  []*part
	parts  map[string]*part
	proxy  *proxy
	client *http.Client

	replicas int // of the streams when they are made; 0: one on each node

	between map[string][]*bustest.Network // of parts by their names, to each node; empty: they reach the nodes themselves
}

const clusterNodes = 3

// onCluster is the topology of docker-compose.yml.
func onCluster(dir string, shards int) host {
	return newCluster(dir, shards, kind{"quota", 2}, kind{"dispatcher", 2}, kind{"version", 2}, kind{"ingress", 2})
}

func newCluster(dir string, shards int, counts ...kind) *clusterHost {
	return &clusterHost{
		dir: dir, shards: shards, counts: counts, parts: map[string]*part{}, client: newClient(),
		binary: func(t testing.TB, _ string) string { return built.path(t) },
	}
}

// engines is nats-server, as the modules have it.
var engines struct {
	once sync.Once
	path string
	err  error
}

func enginePath(t testing.TB) string {
	t.Helper()
	engines.once.Do(func() {
		engines.path = filepath.Join(built.dir, "nats-server")
		out, err := exec.Command("go", "build", "-o", engines.path, "github.com/nats-io/nats-server/v2").CombinedOutput()
		if err != nil {
			engines.err = fmt.Errorf("build nats-server: %w: %s", err, out)
		}
	})
	if engines.err != nil {
		t.Fatal(engines.err)
	}
	return engines.path
}

func (h *clusterHost) start(t *testing.T) started {
	t.Helper()
	first := h.ports == nil
	if first {
		h.ports = bustest.FreePorts(t, 3*clusterNodes)
		keys := operator.Keys{Dir: h.secret(""), Owner: -1}
		if err := keys.Run(t.Context(), &operator.Terminal{Out: io.Discard, Err: io.Discard}); err != nil {
			t.Fatal(err)
		}
	}
	h.nodes = make([]*part, clusterNodes)
	for n := range h.nodes {
		h.startNode(t, n)
	}
	for _, k := range h.counts {
		for number := range k.count {
			h.startPart(t, k.role, number)
		}
	}
	var begun started
	if first {
		if h.replicas == 0 {
			h.replicas = clusterNodes
		}
		h.apply(t, "--replicas", fmt.Sprint(h.replicas), "--shards", fmt.Sprint(h.shards), "--enqueue-max-bytes", "1GiB", "--status-max-bytes", "1GiB")
		begun.token = h.makeDefault(t)
	}
	for _, p := range h.parts {
		h.awaitReady(t, p)
	}
	h.proxy = newProxy(t, h.urls)
	begun.url, begun.client = h.proxy.url, h.client
	return begun
}

func (h *clusterHost) secret(name string) string { return filepath.Join(h.dir, "secrets", name) }

// nodeURLs are where parts reach the nodes.
func (h *clusterHost) nodeURLs() string {
	var urls []string
	for _, port := range h.ports[:clusterNodes] {
		urls = append(urls, fmt.Sprintf("tls://127.0.0.1:%d", port))
	}
	return strings.Join(urls, ",")
}

// urlsOf are where a part reaches the nodes.
func (h *clusterHost) urlsOf(t *testing.T, part string) string {
	t.Helper()
	if h.between == nil {
		return h.nodeURLs()
	}
	if h.between[part] == nil {
		for _, port := range h.ports[:clusterNodes] {
			h.between[part] = append(h.between[part], bustest.NewNetwork(func() (net.Conn, error) {
				return new(net.Dialer).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			}))
		}
	}
	var urls []string
	for _, network := range h.between[part] {
		urls = append(urls, "tls://"+network.Listen(t))
	}
	return strings.Join(urls, ",")
}

// access is what makes a command reach the cluster.
func (h *clusterHost) access() []string {
	return []string{"--nats", h.nodeURLs(), "--nkey", h.secret("operator.nk"), "--ca", h.secret("ca.pem")}
}

func (h *clusterHost) dial(name string) (*nats.Conn, error) {
	return natsd.Join(natsd.JoinOptions{URLs: strings.Split(h.nodeURLs(), ","), Name: name, NKey: h.secret("operator.nk"), CA: h.secret("ca.pem"), Once: true})
}

func (h *clusterHost) startNode(t *testing.T, n int) {
	t.Helper()
	var routes []string
	for _, port := range h.ports[clusterNodes : 2*clusterNodes] {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	keys, err := os.ReadFile(h.secret("keys.env"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(enginePath(t), "-c", "../../../configs/cluster/nats.conf")
	at := func(group int) string { return fmt.Sprintf("127.0.0.1:%d", h.ports[group*clusterNodes+n]) }
	cmd.Env = append(strings.Fields(string(keys)),
		fmt.Sprintf("NODE=nats-%d", n), "LISTEN="+at(0), "ROUTES_LISTEN="+at(1), "MONITOR="+at(2),
		"ROUTES=["+strings.Join(routes, ", ")+"]", "STORE="+filepath.Join(h.dir, fmt.Sprintf("nats-%d", n)), "STORE_MAX=20GB",
		"TLS_CERT="+h.secret("node.pem"), "TLS_KEY="+h.secret("node.key"), "TLS_CA="+h.secret("ca.pem"))
	p := &part{role: "nats", number: n}
	p.spawn(t, cmd)
	h.nodes[n] = p
}

func (h *clusterHost) startPart(t *testing.T, role string, number int) *part {
	t.Helper()
	data := h.dir // where tests look for projections, as far as the first of each goes
	name := fmt.Sprintf("%s-%d", role, number)
	if number > 0 {
		data = filepath.Join(h.dir, name)
	}
	address := "127.0.0.1:0"
	if before := h.parts[name]; before != nil {
		address = strings.TrimPrefix(before.url, "http://") // where its clients look for it
	}
	cmd := exec.Command(h.binary(t, role), "serve", role, "--nats", h.urlsOf(t, name), "--data", data, "--http", address, "--log-level", "debug")
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"HOME=" + cmd.Dir, "TRUNKLINE_NATS_NKEY=" + h.secret(""), "TRUNKLINE_NATS_CA=" + h.secret("ca.pem")}
	p := &part{role: role, number: number}
	h.parts[p.name()] = p
	lines := p.spawn(t, cmd)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("%s did not start: %v; its log is %s", p.name(), err, p.log.Name())
	}
	p.url = strings.TrimSpace(strings.TrimPrefix(line, "Trunkline listens at "))
	return p
}

// spawner starts processes that end with this one. The kernel ties their end to the thread that started them.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go spawnAll(work)
	return work
})

func spawnAll(work <-chan func()) {
	runtime.LockOSThread()
	for f := range work {
		f()
	}
}

// spawn starts the part's process and gives what it prints.
func (p *part) spawn(t *testing.T, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	p.cmd, p.log, p.read, p.stdin = cmd, logs.open(t), make(chan struct{}), io.NopCloser(nil)
	if p.role == "nats" {
		// It names files by sums that look like tokens, and never saw one.
		var err error
		if p.log, err = os.CreateTemp(built.dir, p.name()+"-*.log"); err != nil {
			t.Fatal(err)
		}
	}
	p.cmd.Stderr = p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = w
	failed := make(chan error)
	spawner() <- func() { failed <- p.cmd.Start() }
	if err := errors.Join(<-failed, w.Close()); err != nil {
		t.Fatal(err)
	}
	if p.role == "nats" { // which prints nothing
		close(p.read)
		_ = out.Close()
		return nil
	}
	// One line is read by the caller, the rest by nobody: it fits into the pipe.
	close(p.read)
	t.Cleanup(func() { _ = out.Close() })
	return bufio.NewReader(out)
}

// command runs an operator's command, and says whether it succeeded.
func (h *clusterHost) command(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	out, err := command(t, append(args, h.access()...)...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return out, err
}

// apply makes or changes the streams, as soon as there are nodes.
func (h *clusterHost) apply(t *testing.T, args ...string) {
	t.Helper()
	var last error
	defer func() {
		if t.Failed() {
			t.Log("the last stream apply:", last)
		}
	}()
	testkit.Eventually(t, "the streams are applied", func() bool {
		_, last = h.command(t, append([]string{"stream", "apply"}, args...)...)
		return last == nil
	})
}

func (h *clusterHost) makeDefault(t *testing.T) string {
	t.Helper()
	out, err := h.command(t, "account", "create", "default", "--rate", "0", "--json")
	var made struct {
		Token string `json:"token"`
	}
	if err == nil {
		err = json.Unmarshal(out, &made)
	}
	if err != nil {
		t.Fatal(err)
	}
	return made.Token
}

func (h *clusterHost) awaitReady(t *testing.T, p *part) {
	t.Helper()
	testkit.Eventually(t, p.name()+" is ready", func() bool { return h.ready(p) == http.StatusOK })
}

// ready is the status of a part's health, 0 where it does not answer.
func (h *clusterHost) ready(p *part) int {
	got, err := h.client.Get(p.url + "/health/ready")
	if err != nil {
		return 0
	}
	defer got.Body.Close()
	_, _ = io.Copy(io.Discard, got.Body)
	return got.StatusCode
}

// urls are the ingresses that are thought to run.
func (h *clusterHost) urls() []string {
	var urls []string
	for _, p := range h.parts {
		if p.role == "ingress" {
			urls = append(urls, p.url)
		}
	}
	slices.Sort(urls)
	return urls
}

func (h *clusterHost) stop(t *testing.T) { h.endAll(t, syscall.SIGTERM) }
func (h *clusterHost) kill(t *testing.T) { h.endAll(t, syscall.SIGKILL) }

// endAll ends the nodes last: the parts need them to end cleanly.
func (h *clusterHost) endAll(t *testing.T, s syscall.Signal) {
	t.Helper()
	h.proxy.close()
	h.client.CloseIdleConnections()
	for _, group := range [][]*part{slices.Collect(mapValues(h.parts)), h.nodes} {
		var all sync.WaitGroup
		for _, p := range group {
			all.Go(func() {
				if p.paused {
					p.resume(t)
				}
				p.end(t, s)
			})
		}
		all.Wait()
	}
}

func mapValues(parts map[string]*part) func(func(*part) bool) {
	return func(yield func(*part) bool) {
		for _, p := range parts {
			if !yield(p) {
				return
			}
		}
	}
}

// proxy hands connections to the ingresses in turn, and passes over those that do not listen.
type proxy struct {
	url      string
	listener net.Listener
	next     atomic.Uint64
	all      sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newProxy(t *testing.T, urls func() []string) *proxy {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{url: "http://" + l.Addr().String(), listener: l, conns: map[net.Conn]bool{}}
	to := urls()
	p.all.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			p.all.Go(func() { p.pass(from, to) })
		}
	})
	return p
}

func (p *proxy) pass(from net.Conn, urls []string) {
	defer from.Close()
	for range urls {
		to, err := net.Dial("tcp", strings.TrimPrefix(urls[p.next.Add(1)%uint64(len(urls))], "http://"))
		if err != nil {
			continue
		}
		p.mu.Lock()
		p.conns[from], p.conns[to] = true, true
		p.mu.Unlock()
		var both sync.WaitGroup
		for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
			both.Go(func() {
				_, _ = io.Copy(way[0], way[1])
				_ = way[0].Close()
				_ = way[1].Close()
			})
		}
		both.Wait()
		p.mu.Lock()
		delete(p.conns, from)
		delete(p.conns, to)
		p.mu.Unlock()
		return
	}
}

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.all.Wait()
}
