package e2e

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var greedyFor = flag.Duration("greedy", 12*time.Second, "how long senders send what takes the most memory")

const (
	// greedySenders send at a time, and greedyTenants are whose they are.
	greedySenders = 500
	greedyTenants = 8
	// greedyMemory is the most that the server may take meanwhile, in MiB, without the pages of files that it reads.
	greedyMemory = 300
)

// Whatever five hundred senders do at a time, the server's memory stays within its bound, and a small post of somebody
// else is taken.
func TestMemory_GreedySenders(t *testing.T) {
	s, pid := launchMeasured(t, process)
	before := memory(t, pid, "RssAnon")
	numbers := make([]string, 100)
	for i := range numbers {
		numbers[i] = strconv.Quote(fmt.Sprintf("+49151%07d", i))
	}
	items := func(n int, item string) string { return "[" + strings.Repeat(item+",", n-1) + item + "]" }
	to := strings.Join(numbers, ",")
	separators := strings.Repeat("\u2028", 1000) // three bytes each, and six where they are stored
	small := []byte(items(1000, `{"phone":"123456","text":"a"}`))
	large := []byte(items(1000, `{"phone":"123456","text":"`+separators+`"}`))
	reports := []byte(`{"messages":` + items(1000, `{"hash":"0123456789abcdef","status":2}`) + `}`)
	recipients := []byte(`{"textMessage":{"text":"` + strings.Repeat("<", 31<<10) + `"},"phoneNumbers":[` + to + `]}`)

	// request is what a sender of a tenant sends, over and over again. Of one kind of them the end does not come.
	request := func(i int, l login, token string) (head, body []byte) {
		path, auth := "/api/queue", "Bearer "+token
		less := 0
		switch i % 6 {
		case 0, 1:
			path, body, auth = thirdparty+"/messages", recipients, l.header
		case 2:
			body = large
		case 3:
			body = small
		case 4:
			path, body = "/api/status", reports
		case 5:
			body, less = large, 1
		}
		head = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n", path, auth, len(body))
		return head, body[:len(body)-less]
	}
	var wg sync.WaitGroup
	var peak atomic.Int64
	statuses := struct {
		sync.Mutex
		of map[int]int
	}{of: map[int]int{}}
	logins, tokens := make([]login, greedyTenants), make([]string, greedyTenants)
	for i := range greedyTenants {
		logins[i], tokens[i] = s.loginOf(fmt.Sprint("greedy", i))
	}
	good := s.api(s.account("good", nil))
	ctx, stop := context.WithTimeout(t.Context(), *greedyFor)
	defer stop()
	// First all at once, which costs the most: a hundred recipients of markup, each of which an event may have as escapes.
	var crowd sync.WaitGroup
	for i := range greedySenders {
		head, body := request(0, logins[i%greedyTenants], tokens[i%greedyTenants])
		crowd.Go(func() { send(ctx, strings.TrimPrefix(s.url, "http://"), head, body) })
	}
	wg.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			peak.Store(max(peak.Load(), int64(memory(t, pid, "RssAnon"))))
		}
	})
	crowd.Wait()
	atOnce := peak.Load()
	for i := range greedySenders {
		tenant := i / 6 % greedyTenants
		head, body := request(i, logins[tenant], tokens[tenant])
		wg.Go(func() {
			for ctx.Err() == nil {
				status := send(ctx, strings.TrimPrefix(s.url, "http://"), head, body)
				statuses.Lock()
				statuses.of[status]++
				statuses.Unlock()
			}
		})
	}
	posts := 0
	for ctx.Err() == nil || posts == 0 {
		got, err := good.do(http.MethodPost, "/queue", `{"phone":"123456","text":"a"}`)
		if err != nil || got.status != http.StatusOK {
			t.Errorf("a small post beside them: got %v, %v", got, err)
			break
		}
		posts++
	}
	wg.Wait()
	t.Logf("%d senders had the answers %v (0: none); the server took %d MiB before, %d MiB when they sent the same at once, and %d MiB at most; %d posts of somebody else were taken; %s",
		greedySenders, statuses.of, before, atOnce, peak.Load(), posts, load(t))
	if statuses.of[http.StatusOK]+statuses.of[http.StatusAccepted] == 0 {
		t.Error("nothing of theirs was taken")
	}
	if peak.Load() > greedyMemory {
		t.Errorf("the server took %d MiB, want at most %d", peak.Load(), greedyMemory)
	}
}

// send sends a request over a connection of its own, and gives the answer's status, or 0.
func send(ctx context.Context, address string, head, body []byte) int {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return 0
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now().Add(time.Second)) })()
	go func() { // the answer may come before the end
		_, _ = conn.Write(head)
		_, _ = conn.Write(body)
	}()
	line := make([]byte, len("HTTP/1.1 200"))
	for n := 0; n < len(line); {
		more, err := conn.Read(line[n:])
		if err != nil {
			return 0
		}
		n += more
	}
	status, _ := strconv.Atoi(string(line[len("HTTP/1.1 "):]))
	return status
}
