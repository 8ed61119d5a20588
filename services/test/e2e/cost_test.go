package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/metrics"
	"strings"
	"testing"
)

// connection is one that makes requests which were made before, and costs little itself.
type connection struct {
	conn   net.Conn
	reader *bufio.Reader
	body   bytes.Buffer
}

func (s *trunkline) connect() *connection {
	s.Helper()
	conn, err := new(net.Dialer).DialContext(s.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = conn.Close() })
	return &connection{conn: conn, reader: bufio.NewReader(conn)}
}

// request is a whole request to the queue dialect.
func (s *trunkline) request(method, path, body string) []byte {
	return fmt.Appendf(nil, "%s /api/%s/%s HTTP/1.1\r\nHost: trunkline\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, s.token, path, len(body), body)
}

// do makes a request and gives the answer's body, valid until the next one.
func (c *connection) do(request []byte) ([]byte, error) {
	if _, err := c.conn.Write(request); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	c.body.Reset()
	if _, err := c.body.ReadFrom(response.Body); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	return c.body.Bytes(), nil
}

// posting is a post of n messages.
func (s *trunkline) posting(n int) []byte {
	all := make([]sms, n)
	for i := range all {
		all[i] = sms{number(i), "Your order has left our warehouse and should be with you by tomorrow noon."}
	}
	body, err := json.Marshal(all)
	if err != nil {
		s.Fatal(err)
	}
	return s.request(http.MethodPost, "queue", string(body))
}

// work has one sender post pages of so many messages, and a phone pull and report them all, and says what of something
// each of the three requests used.
func (s *trunkline) work(pages, size int, used func() float64) (post, pull, report float64) {
	s.Helper()
	sender := s.connect()
	measured := func(c *connection, request []byte) (answer []byte, cost float64) {
		before := used()
		answer, err := c.do(request)
		if err != nil {
			s.Fatal(err)
		}
		return answer, (used() - before) / float64(pages)
	}
	posting := s.posting(size)
	pulling := s.request(http.MethodGet, fmt.Sprintf("get_messages?device=phone&limit=%d", size), "")
	for range pages {
		_, cost := measured(sender, posting)
		post += cost
	}
	phone := s.connect() // no earlier: a new connection has 5 s to begin its first request
	for range pages {
		page, cost := measured(phone, pulling)
		pull += cost
		_, cost = measured(phone, s.reporting(page, size))
		report += cost
	}
	return post, pull, report
}

// reporting is the report that a page of so many messages was delivered.
func (s *trunkline) reporting(page []byte, size int) []byte {
	s.Helper()
	var messages []outgoing
	if err := json.Unmarshal(page, &messages); err != nil || len(messages) != size {
		s.Fatalf("pulled %d messages, want %d: %v", len(messages), size, err)
	}
	items := make([]string, size)
	for i, m := range messages {
		items[i] = fmt.Sprintf(`{"hash":%q,"status":%d}`, m.Hash, success)
	}
	return s.request(http.MethodPost, "status", fmt.Sprintf(`{"device":"phone","messages":[%s]}`, strings.Join(items, ",")))
}

// cost is the most that a request may use, in requests of so many messages.
type cost struct {
	size, pages        int
	post, pull, report float64
}

func (c cost) check(t *testing.T, what string, post, pull, report float64) {
	t.Helper()
	t.Logf("%s of requests with %d messages: post %.2f, pull %.2f, report %.2f", what, c.size, post, pull, report)
	for _, got := range []struct {
		request   string
		got, most float64
	}{{"post", post, c.post}, {"pull", pull, c.pull}, {"report", report, c.report}} {
		if got.got > got.most {
			t.Errorf("a %s of %d messages made %.2f %s, want at most %.2f", got.request, c.size, got.got, what, got.most)
		}
	}
}

// How often a request allocates in the whole process, engine and projections included. What others of the process
// allocate meanwhile is more the longer the requests take on a busy machine: of several runs the least counts.
func TestCost_Allocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	s := launch(t, inside, 1)
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	allocated := func() float64 {
		metrics.Read(samples)
		return float64(samples[0].Value.Uint64())
	}
	s.work(20, 20, allocated) // what is made once
	for _, c := range []cost{
		{size: 1, pages: 100, post: 330, pull: 950, report: 600},
		{size: 100, pages: 10, post: 170 * 100, pull: 125 * 100, report: 75 * 100},
	} {
		post, pull, report := s.work(c.pages, c.size, allocated)
		for range 4 {
			p, q, r := s.work(c.pages, c.size, allocated)
			post, pull, report = min(post, p), min(pull, q), min(report, r)
		}
		c.check(t, "allocations", post, pull, report)
	}
}

// A request costs no more when many wait than when few do.
func TestCost_Backlog(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	const size, pages = 50, 40
	few := many(2_000, 5_000)
	lots := 10 * few
	s := launch(t, inside, 1)
	sender, posting, waiting := s.connect(), s.posting(1000), 0
	fill := func(n int) {
		for ; waiting < n; waiting += 1000 {
			if _, err := sender.do(posting); err != nil {
				t.Fatal(err)
			}
		}
	}
	type used struct{ post, pull, report float64 }
	work := func(what string) used {
		samples := []metrics.Sample{{Name: "/gc/heap/allocs:" + what}}
		post, pull, report := s.work(pages, size, func() float64 {
			metrics.Read(samples)
			return float64(samples[0].Value.Uint64())
		})
		t.Logf("%d wait: %s of post %.0f, pull %.0f, report %.0f", waiting, what, post, pull, report)
		return used{post, pull, report}
	}
	measures := []string{"objects", "bytes"}
	before := map[string]used{}
	fill(few)
	work("objects") // what is made once
	for _, what := range measures {
		before[what] = work(what)
	}
	fill(lots)
	const most = 1.6 // times, of ten times as many
	for _, what := range measures {
		was, is := before[what], work(what)
		if is.post > most*was.post || is.pull > most*was.pull || is.report > most*was.report {
			t.Errorf("got %+v %s with %d waiting and %+v with %d", is, what, lots, was, few)
		}
	}
}
