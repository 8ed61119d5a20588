package e2e

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/trunkline-sms/trunkline/streams"
)

var overloadFor = flag.Duration("overload", 5*time.Second, "how long the server is offered ten times what it accepts")

const (
	// overloadSize is the messages of a post: it must cost less to offer it than to accept it.
	overloadSize = 20
	// overloadConns is how many connections ten times the load comes from.
	overloadConns = 1500
	// overloadMemory is the most that the server may take, in MiB, without the pages of files that it reads.
	overloadMemory = 512
)

// Offered ten times what it accepts, a server refuses the rest, and sooner than it accepts; its memory stays within
// bounds, phones are served meanwhile, what it accepted is delivered once, and afterwards it accepts as before.
func TestOverload(t *testing.T) {
	s, pid := launchMeasured(t, process)
	f := newSwell(s)

	closed := f.offer(64, 2*time.Second, 0)
	t.Logf("closed loop: %v", closed)
	rate := float64(closed.accepted.TotalCount()) / closed.took.Seconds()
	if rate == 0 || closed.refused.TotalCount() != 0 || len(closed.others) != 0 {
		t.Fatalf("got %v, want posts accepted and no other answer", closed)
	}

	during, stop := context.WithCancel(t.Context())
	served := f.deliver(during)
	open := f.offer(overloadConns, *overloadFor, 10*rate)
	stop()
	meanwhile := served()
	t.Logf("of %.0f posts a second: %v; meanwhile %d messages were delivered; the server takes %d MiB, %d at most with its files, of %s",
		10*rate, open, meanwhile, memory(t, pid, "RssAnon"), memory(t, pid, "VmHWM"), load(t))

	again := f.offer(1, 0, 0)
	for try := 1; again.accepted.TotalCount() == 0; try++ {
		if try == 3 {
			t.Errorf("after the load: got %v, want a post accepted", again)
			break
		}
		again = f.offer(1, 0, 0)
	}
	if len(open.others) != 0 {
		t.Errorf("got %v, want every post accepted or refused", open)
	}
	if open.accepted.TotalCount() == 0 || open.refused.TotalCount() < open.accepted.TotalCount() {
		t.Errorf("got %v, want some posts accepted and more refused", open)
	}
	for _, q := range []float64{50, 99} {
		if accepted, refused := open.accepted.ValueAtQuantile(q), open.refused.ValueAtQuantile(q); refused > accepted {
			t.Errorf("percentile %v: refused after %d µs and accepted after %d µs, want refusals to be faster", q, refused, accepted)
		}
	}
	if meanwhile == 0 {
		t.Error("no phone was served during the load")
	}
	if got := memory(t, pid, "RssAnon"); got > overloadMemory {
		t.Errorf("the server takes %d MiB, want at most %d", got, overloadMemory)
	}
	f.drain()
}

// swell is senders and phones of one account, who know of every message by its number what became of it.
type swell struct {
	*trunkline
	token string
	posts atomic.Int64

	mu        sync.Mutex
	fates     map[int]fate // by post
	delivered map[int]int  // how often, by message
	accepted  int          // messages
}

func newSwell(s *trunkline) *swell {
	token := s.account("flood", func(p *streams.Plan) { p.Lease = time.Hour })
	return &swell{trunkline: s, token: token, fates: map[int]fate{}, delivered: map[int]int{}}
}

// offered is what posts were answered, with the time each took in microseconds.
type offered struct {
	accepted, refused *hdrhistogram.Histogram
	others            map[string]int
	took              time.Duration
}

func newOffered() *offered {
	histogram := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, time.Minute.Microseconds(), 3) }
	return &offered{accepted: histogram(), refused: histogram(), others: map[string]int{}}
}

func (o *offered) String() string {
	percentiles := func(h *hdrhistogram.Histogram) string {
		if h.TotalCount() == 0 {
			return "none"
		}
		at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) * time.Microsecond }
		return fmt.Sprintf("%d (%.0f/s; p50 %v, p99 %v, p99.9 %v, max %v)", h.TotalCount(), float64(h.TotalCount())/o.took.Seconds(),
			at(50), at(99), at(99.9), at(100))
	}
	return fmt.Sprintf("accepted %s, refused %s, otherwise %v", percentiles(o.accepted), percentiles(o.refused), o.others)
}

func (o *offered) add(other *offered) {
	o.accepted.Merge(other.accepted)
	o.refused.Merge(other.refused)
	for what, n := range other.others {
		o.others[what] += n
	}
}

// offer posts over so many connections for some time, at a rate a second or, with none, as fast as it is answered. Each
// posts at least once.
func (f *swell) offer(conns int, d time.Duration, rate float64) *offered {
	f.Helper()
	all := make([]*lane, conns)
	for i := range all {
		all[i] = f.lane()
	}
	begun := time.Now()
	due := func(n int64) time.Duration {
		if rate == 0 {
			return 0
		}
		return time.Duration(float64(n) / rate * float64(time.Second))
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	parts := make([]*offered, conns)
	for i, l := range all {
		parts[i] = newOffered()
		wg.Go(func() {
			defer l.conn.Close()
			for {
				at := due(next.Add(1) - 1)
				if at > d || rate == 0 && time.Since(begun) > d {
					if d > 0 || parts[i].accepted.TotalCount() > 0 {
						return
					}
				}
				if time.Since(begun) > d && rate > 0 {
					return
				}
				until(f.T, begun.Add(at)) // nobody can offer a rate otherwise
				if !l.post(parts[i]) || d == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	sum := newOffered()
	for _, part := range parts {
		sum.add(part)
	}
	sum.took = time.Since(begun)
	return sum
}

// lane is a connection of a sender.
type lane struct {
	*swell
	conn   net.Conn
	reader *bufio.Reader
	buffer []byte
}

func (f *swell) lane() *lane {
	f.Helper()
	conn, err := new(net.Dialer).DialContext(f.Context(), "tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		f.Fatal(err)
	}
	return &lane{swell: f, conn: conn, reader: bufio.NewReaderSize(conn, 2048)}
}

// post makes one, and says whether the connection is good for another.
func (l *lane) post(to *offered) bool {
	n := int(l.posts.Add(1))
	body := make([]byte, 0, 80*overloadSize)
	for i := range overloadSize {
		body = fmt.Appendf(body, `,{"phone":%q,"message":%q}`, number(i), text("flood", n*overloadSize+i))
	}
	body[0] = '['
	body = append(body, ']')
	l.buffer = fmt.Appendf(l.buffer[:0], "POST /api/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", l.token, len(body), body)
	begun := time.Now()
	status, again, err := l.do()
	took := time.Since(begun).Microseconds()
	said := refused
	switch {
	case err != nil:
		said = unknown
		to.others[err.Error()]++
	case status == http.StatusOK:
		said = accepted
		_ = to.accepted.RecordValue(took)
	case again && (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests):
		_ = to.refused.RecordValue(took)
	default:
		to.others[strconv.Itoa(status)]++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fates[n] = said
	if said == accepted {
		l.swell.accepted += overloadSize
	}
	return err == nil
}

// do gives an answer's status, and whether it says when to come again.
func (l *lane) do() (status int, again bool, err error) {
	if _, err := l.conn.Write(l.buffer); err != nil {
		return 0, false, errors.New("write")
	}
	length := 0
	for first := true; ; first = false {
		line, err := l.reader.ReadSlice('\n')
		switch {
		case err != nil:
			return 0, false, errors.New("read")
		case first && len(line) > 12:
			status, _ = strconv.Atoi(string(line[9:12]))
		case len(line) <= 2:
			_, err := l.reader.Discard(length)
			return status, again, err
		}
		name, value, _ := strings.Cut(string(line), ": ")
		switch name {
		case "Content-Length":
			length, _ = strconv.Atoi(strings.TrimSpace(value))
		case "Retry-After":
			again = true
		}
	}
}

// deliver runs a phone until ctx is done, and gives how many messages it delivered. Its reports must all be taken.
func (f *swell) deliver(ctx context.Context) (wait func() int) {
	a := f.api(f.token)
	a.ctx = context.WithoutCancel(ctx)
	count := make(chan int, 1)
	go func() {
		n := 0
		for ctx.Err() == nil {
			page, err := a.pull("phone", 200, 0)
			if err != nil || len(page) == 0 {
				continue
			}
			f.note(page)
			if _, err := a.report("phone", success, page); err != nil {
				f.Errorf("a report during the load: %v", err)
			}
			n += len(page)
		}
		count <- n
	}()
	return func() int { return <-count }
}

var ofFlood = regexp.MustCompile(`^secret-text-flood-([0-9]+)$`)

func (f *swell) note(page []outgoing) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range page {
		match := ofFlood.FindStringSubmatch(m.Text)
		if match == nil {
			f.Error("a message was handed out that nobody posted")
			continue
		}
		n, _ := strconv.Atoi(match[1])
		f.delivered[n]++
	}
}

// drain delivers the rest, and checks that it is what was accepted, each message once.
func (f *swell) drain() {
	f.Helper()
	var wg sync.WaitGroup
	for i := range 4 {
		a, device := f.api(f.token), fmt.Sprintf("phone%d", i)
		wg.Go(func() {
			for {
				page, err := a.pull(device, 200, 0)
				if err != nil {
					f.Error(err)
					return
				}
				if len(page) == 0 {
					return
				}
				f.note(page)
				if _, err := a.report(device, success, page); err != nil {
					f.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	lost, doubled, ghosts := 0, 0, 0
	for n, said := range f.fates {
		for i := range overloadSize {
			switch times := f.delivered[n*overloadSize+i]; {
			case times > 1:
				doubled++
			case said == accepted && times == 0:
				lost++
			case said == refused && times > 0:
				ghosts++
			}
		}
	}
	f.Logf("%d messages accepted, %d delivered", f.accepted, len(f.delivered))
	if lost+doubled+ghosts > 0 || f.accepted == 0 {
		f.Errorf("of %d accepted messages %d were lost, %d delivered more than once; %d were refused and delivered", f.accepted, lost, doubled, ghosts)
	}
}

// memory is what a process takes, in MiB.
func memory(t *testing.T, pid int, what string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(what + `:\s+([0-9]+) kB`).FindSubmatch(status)
	if match == nil {
		t.Fatalf("no %s in the status of the process", what)
	}
	kib, _ := strconv.Atoi(string(match[1]))
	return kib >> 10
}

// load is the machine's.
func load(t *testing.T) string {
	t.Helper()
	average, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	return "a machine with load " + strings.TrimSpace(string(average))
}
