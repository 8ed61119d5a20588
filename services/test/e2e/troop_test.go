package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/table"
	"github.com/trunkline-sms/trunkline/streams"
)

// troopVariable makes this binary attackers, in a process of their own, instead of tests: they must not take the time of
// those who measure.
const troopVariable = "TRUNKLINE_ATTACKERS"

// target is what attackers know, and who they are.
type target struct {
	URL             string
	Account         streams.AccountID // of their own
	Token           string            // its
	Login, Password string            // its
	Phones          string            // token of another one, whose phones wait
	Victim          string            // login of the account that they want to harm

	Names []string
	For   time.Duration
}

// attacker does one thing that nobody should, over and over.
type attacker struct {
	name    string
	workers int     // at most at once
	rate    float64 // a second, of all workers together
	burst   int     // so many at once, and seldomer; 0: one
	once    string  // an answer that it gets unless it is refused or mistaken itself; empty: any
	act     func(ctx context.Context, t *troop, n int) (said string)
}

// outcomes are what attackers were answered.
type outcomes struct {
	Begun, Done int
	Said        map[string]int
}

// mistaken says that an attacker speaks so badly that it attacks nobody.
func (o *outcomes) mistaken(once string) bool {
	if o.Said[once] > 0 {
		return false
	}
	for _, wrong := range []string{"400", "401", "404", "405", "409", "413", "415", "422"} {
		if o.Said[wrong] > 0 && once != "" {
			return true
		}
	}
	return false
}

type campaign map[string]*outcomes

func (c campaign) String() string {
	var all table.Table
	all.Row("", "begun", "done", "answers")
	for _, name := range slices.Sorted(maps.Keys(c)) {
		var said []string
		for _, what := range slices.Sorted(maps.Keys(c[name].Said)) {
			said = append(said, fmt.Sprintf("%s: %d", what, c[name].Said[what]))
		}
		all.Row(name, c[name].Begun, c[name].Done, strings.Join(said, ", "))
	}
	var text strings.Builder
	_ = all.Print(&text)
	return text.String()
}

// startAttack starts attackers in a process of their own that yields to others. It ends by itself, and with the test.
func startAttack(t *testing.T, aim target, names []string, d time.Duration) (wait func() campaign) {
	t.Helper()
	aim.Names, aim.For = names, d
	asked, err := json.Marshal(aim)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("nice", "-n", "10", os.Args[0])
	cmd.Env = []string{troopVariable + "=" + string(asked), "GOMAXPROCS=1"}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	return func() (c campaign) {
		err := json.NewDecoder(out).Decode(&c)
		if ended := cmd.Wait(); ended != nil || err != nil {
			t.Fatalf("the attackers ended with: %v, %v", ended, err)
		}
		t.Logf("the attackers took %v of a processor", cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		return c
	}
}

// beHostile attacks what the environment names, and ends the process. It returns if that names nothing.
func beHostile() {
	asked := os.Getenv(troopVariable)
	if asked == "" {
		return
	}
	t := &troop{client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, begun: time.Now()}
	if err := json.Unmarshal([]byte(asked), &t.target); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), t.For)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // which ends with the test
		os.Exit(1)
	}()
	if err := json.NewEncoder(os.Stdout).Encode(t.run(ctx)); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// troop is all attackers of a process.
type troop struct {
	target
	client *http.Client
	begun  time.Time

	first sync.Once
	sent  string // items that say that messages were sent
}

func (t *troop) run(ctx context.Context) campaign {
	all := campaign{}
	var wg sync.WaitGroup
	for _, a := range attackers() {
		if !slices.Contains(t.Names, a.name) {
			continue
		}
		o, mu, p := &outcomes{Said: map[string]int{}}, &sync.Mutex{}, newPacer(a)
		all[a.name] = o
		for range a.workers {
			wg.Go(func() {
				for n, ok := p.wait(ctx); ok; n, ok = p.wait(ctx) {
					mu.Lock()
					o.Begun++
					mu.Unlock()
					said := a.act(ctx, t, n)
					mu.Lock()
					if o.Done++; ctx.Err() != nil && (said == "closed" || said == "no connection") {
						said = "open in the end"
					}
					o.Said[said]++
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return all
}

// pacer gives workers their turns. What could not be done in time is not made up for.
type pacer struct {
	burst int
	every time.Duration // between bursts

	mu   sync.Mutex
	n    int
	next time.Time
}

func newPacer(a attacker) *pacer {
	burst := max(a.burst, 1)
	return &pacer{burst: burst, every: time.Duration(float64(burst) / a.rate * float64(time.Second)), next: time.Now()}
}

// wait gives the number of the turn, once it is due.
func (p *pacer) wait(ctx context.Context) (n int, ok bool) {
	p.mu.Lock()
	n = p.n
	p.n++
	if n > 0 && n%p.burst == 0 {
		p.next = p.next.Add(p.every)
		if now := time.Now(); p.next.Before(now) {
			p.next = now
		}
	}
	at := p.next
	p.mu.Unlock()
	return n, rest(ctx, time.Until(at))
}

// call makes a request, and gives what it was answered.
func (t *troop) call(ctx context.Context, method, path, body string, header ...string) (said string, got []byte) {
	request, err := http.NewRequestWithContext(ctx, method, t.URL+path, strings.NewReader(body))
	if err != nil {
		return "none", nil
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := t.client.Do(request)
	if err != nil {
		return "closed", nil
	}
	defer response.Body.Close()
	got, _ = io.ReadAll(response.Body)
	return strconv.Itoa(response.StatusCode), got
}

// raw says something over a connection of its own, and gives the status that it is answered, or "closed". It holds the
// connection until there is one.
func (t *troop) raw(ctx context.Context, say func(net.Conn) error) string {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(t.URL, "http://"))
	if err != nil {
		return "no connection"
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // else the machine would remember each for a minute
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var saying sync.WaitGroup
	saying.Go(func() { _ = say(conn) })
	defer saying.Wait()
	defer conn.Close()
	var line [12]byte // HTTP/1.1 200
	if _, err := io.ReadFull(conn, line[:]); err != nil {
		return "closed"
	}
	return string(line[9:])
}

// stranger is the address of one of many, as a proxy in front tells it. Every other one comes from the same network.
func stranger(n int) string {
	if n%2 == 0 {
		return fmt.Sprintf("203.0.113.%d", n/2%254+1)
	}
	return fmt.Sprintf("198.18.%d.1", n/2%256)
}

// hex gives so many random digits.
func hexDigits(n int) string {
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = fmt.Appendf(b, "%016x", rand.Uint64())
	}
	return string(b[:n])
}
