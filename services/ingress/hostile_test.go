package ingress_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

// wire is a request as it goes over the wire, with the length of its body unless that is in the header.
func wire(line string, body string, header ...string) string {
	all := line + " HTTP/1.1\r\nHost: x\r\n"
	for _, h := range header {
		all += h + "\r\n"
	}
	if !strings.Contains(all, "Transfer-Encoding") && !strings.Contains(all, "Content-Length") {
		all += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	return all + "\r\n" + body
}

const closing = "Connection: close"

// Whatever somebody sends, the answer says what is wrong with it, nothing of it is stored, and the server goes on.
func TestIngress_HostileRequests(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", nil)
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(zip, one)
	_ = zip.Close()
	const (
		notJSON   = `400 {"error":"The body is not valid JSON","code":"invalid_json"}`
		noShape   = `400 {"error":"The body must be a JSON object or array as documented","code":"invalid_json"}`
		tooLarge  = `413 {"error":"The body may have at most 4194304 bytes","code":"body_too_large"}`
		noToken   = `401 {"error":"Invalid API token"}`
		noPath    = `404 {"error":"Not found","code":"not_found"}`
		noMethod  = `405 {"error":"Method not allowed","code":"method_not_allowed"}`
		badLimit  = `422 {"error":"limit must be a number from 1 to 200","code":"invalid_limit"}`
		badWait   = `422 {"error":"wait must be a number of seconds from 0 to 30","code":"invalid_wait"}`
		badDevice = `422 {"error":"device must be a text of at most 15 characters","code":"invalid_device"}`
		badKey    = `400 {"error":"Idempotency-Key must be 1 to 255 printable characters","code":"invalid_idempotency_key"}`
		none      = `422 {"ok":false,"queued":0,"failed":1,"items":[],"errors":[{"index":0,"error":"%s"}]}`
	)
	queue, status, pull := "POST /api/"+token+"/queue", "POST /api/"+token+"/status", "GET /api/"+token+"/get_messages"
	chunk := func(n int, s string) string { return fmt.Sprintf("%x\r\n%s\r\n", n, s) }
	large := strings.Repeat(" ", 1<<20)
	tests := []struct{ name, request, want string }{
		{"nested deeply", wire(queue, strings.Repeat("[", 1<<20), closing), notJSON},
		{"nested deeply in an item", wire(queue, `[{"a":`+strings.Repeat(`{"a":`, 1<<18), closing), notJSON},
		{"not UTF-8", wire(queue, "[{\"phone\":\"123456\",\"message\":\"\xff\xfe\"}]", closing), notJSON},
		{"a NUL", wire(queue, "[{\"phone\":\"123456\",\"message\":\"a\x00b\"}]", closing), notJSON},
		{"a NUL in the number", wire(queue, `[{"phone":"123456\u0000","message":"a"}]`, closing), fmt.Sprintf(none, "Invalid phone format")},
		{"a number for a number", wire(queue, `[{"phone":1e400,"message":"a"}]`, closing), fmt.Sprintf(none, "Phone must be a string")},
		{"a huge number for a text", wire(queue, `[{"phone":"123456","message":`+strings.Repeat("9", 1<<20)+`}]`, closing), fmt.Sprintf(none, "Message must be a string")},
		{"the last of a name counts", wire(queue, `[{"phone":"123456","phone":"x","message":"a"}]`, closing), fmt.Sprintf(none, "Invalid phone format")},
		{"a status out of range", wire(status, `{"messages":[{"hash":"a","status":1e400}]}`, closing), `200 {"ok":true,"updated":0,"errors":[{"index":0,"hash":"a","error":"Status must be 2 or 3"}]}`},
		{"a status of an unknown hash", wire(status, `{"messages":[{"hash":"\u0000","status":2}]}`, closing), `200 {"ok":true,"updated":0,"errors":[{"index":0,"hash":"\u0000","error":"Unknown hash"}]}`},
		{"gzip", wire(queue, zipped.String(), closing, "Content-Encoding: gzip", "Content-Type: application/json"), notJSON},
		{"a form", wire(queue, "phone=123456&message=a", closing, "Content-Type: application/x-www-form-urlencoded"), notJSON},
		{"a text under JSON's name", wire(queue, `"123456"`, closing, "Content-Type: application/json"), noShape},
		{"no body", wire(queue, "", closing), notJSON},
		{"no body for a status", wire(status, "", closing), notJSON},

		{"too large, stated", wire(queue, "[", closing, "Content-Length: 4194305"), tooLarge},
		{"far too large, stated", wire(queue, "[", closing, "Content-Length: 9223372036854775807"), tooLarge},
		{"too large for a length", wire(queue, "[", closing, "Content-Length: 9223372036854775808"), "400 400 Bad Request"},
		{"a negative length", wire(queue, "[", closing, "Content-Length: -1"), "400 400 Bad Request"},
		{"two lengths", wire(queue, "[]", closing, "Content-Length: 2", "Content-Length: 3"), "400 400 Bad Request"},
		{"too large, in chunks", wire(queue, strings.Repeat(chunk(1<<20, large), 5)+"0\r\n\r\n", closing, "Transfer-Encoding: chunked"), tooLarge},
		{"too large for a status, in chunks", wire(status, strings.Repeat(chunk(1<<20, large), 5), closing, "Transfer-Encoding: chunked"), tooLarge},
		{"chunks that are none", wire(queue, "zz\r\n", closing, "Transfer-Encoding: chunked"), `400 {"error":"The body broke off","code":"body_unreadable"}`},
		{"an unknown encoding", wire(queue, "[]", closing, "Transfer-Encoding: gzip"), "501 Unsupported transfer encoding"},
		{"chunks and a length", wire(queue, chunk(2, "{}")+"0\r\n\r\n", closing, "Transfer-Encoding: chunked", "Content-Length: 5"), fmt.Sprintf(none, "Phone is required")},

		{"large headers", wire(pull, "", closing, "X: "+strings.Repeat("x", 64<<10)), "431 431 Request Header Fields Too Large"},
		{"a large path", wire("GET /api/"+strings.Repeat("x", 64<<10)+"/get_messages", "", closing), "431 431 Request Header Fields Too Large"},
		{"a long token", wire("GET /api/"+strings.Repeat("x", 8<<10)+"/get_messages", "", closing), noToken},
		{"a long bearer", wire("GET /api/get_messages", "", closing, "Authorization: Bearer "+strings.Repeat("x", 8<<10)), noToken},
		{"two bearers", wire("GET /api/get_messages", "", closing, "Authorization: Bearer x", "Authorization: Bearer "+token), noToken},
		{"no host", pull + " HTTP/1.1\r\n\r\n", "400 400 Bad Request: missing required Host header"},
		{"no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400 400 Bad Request"},
		{"another version", pull + " HTTP/3.0\r\n\r\n", "505 505 HTTP Version Not Supported: unsupported protocol version"},

		{"a slash too many", wire("GET /api/"+token+"//get_messages", "", closing), "200 []"},
		{"a slash at the end", wire(pull+"/", "", closing), "200 []"},
		{"dots", wire("GET /api/"+token+"/x/../get_messages", "", closing), noPath},
		{"dots for a token", wire("GET /api/../get_messages", "", closing), noToken},
		{"an escaped slash", wire("GET /api/"+token+"%2fget_messages", "", closing), "200 []"},
		{"a NUL in the token", wire("GET /api/"+token+"%00/get_messages", "", closing), noToken},
		{"a broken escape", wire("GET /api/"+token+"%zz/get_messages", "", closing), "400 400 Bad Request"},
		{"capitals", wire("GET /API/"+token+"/Get_Messages", "", closing), "200 []"},
		{"capitals in the token", wire("GET /api/"+strings.ToUpper(token)+"/get_messages", "", closing), noToken},
		{"the wrong method", wire("PUT /api/"+token+"/queue", one, closing), noMethod},
		{"a method of their own", wire("QUEUE /api/"+token+"/queue", one, closing), noMethod},

		{"a negative limit", wire(pull+"?limit=-1", "", closing), badLimit},
		{"a negative limit out of range", wire(pull+"?limit=-99999999999999999999", "", closing), badLimit},
		{"no number", wire(pull+"?limit=1e3", "", closing), badLimit},
		{"a huge limit", wire(pull+"?limit=99999999999999999999", "", closing), "200 []"},
		{"two limits", wire(pull+"?limit=1&limit=x", "", closing), "200 []"},
		{"a negative wait", wire(pull+"?wait=-1", "", closing), badWait},
		{"a wait that is no number", wire(pull+"?wait=NaN", "", closing), badWait},
		{"a device with a NUL", wire(pull+"?device=a%00", "", closing), badDevice},
		{"a device that is not UTF-8", wire(pull+"?device=%ff", "", closing), badDevice},
		{"a long device", wire(pull+"?device="+strings.Repeat("x", 4096), "", closing), badDevice},
		{"an empty key", wire(queue, one, closing, "Idempotency-Key:"), badKey},
		{"a long key", wire(queue, one, closing, "Idempotency-Key: "+strings.Repeat("x", 256)), badKey},
		{"two keys", wire(queue, one, closing, "Idempotency-Key: a", "Idempotency-Key: b"), badKey},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			answers := f.raw(t, []byte(test.request))
			if len(answers) != 1 || answers[0].String() != test.want {
				t.Errorf("got %v, want %s", answers, test.want)
			}
		})
	}
	if enqueued, reported := f.Stored("ENQUEUE_0", "sms.enqueue.>"), f.Stored("STATUS_0", ">"); enqueued+reported != 0 {
		t.Errorf("got %d messages and %d reports stored, want none", enqueued, reported)
	}
	if status, body := f.Post("/api/"+token+"/queue", one); status != http.StatusOK {
		t.Errorf("afterwards: got %d %s", status, body)
	}
}

// Requests that come in one go are answered one after the other, also those behind a refused one; what follows a
// request whose end is not clear is not taken for one.
func TestIngress_Pipelined(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", nil)
	queue := "POST /api/" + token + "/queue"
	answers := f.raw(t, []byte(wire(queue, one)+wire(queue, `[`)+wire("GET /api/x/get_messages", "")+wire(queue, one, closing)+wire(queue, one)))
	got := make([]int, len(answers))
	for i, a := range answers {
		got[i] = a.status
	}
	if want := "[200 400 401 200]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if got := f.Stored("ENQUEUE_0", "sms.enqueue.>"); got != 2 {
		t.Errorf("got %d stored, want 2", got)
	}
	// A request hidden in the body of a refused one.
	answers = f.raw(t, []byte(wire(queue, wire(queue, one), "Content-Length: 9999999")))
	if len(answers) != 1 || answers[0].status != http.StatusRequestEntityTooLarge {
		t.Errorf("got %v, want one 413", answers)
	}
	if got := f.Stored("ENQUEUE_0", "sms.enqueue.>"); got != 2 {
		t.Errorf("got %d stored, want 2", got)
	}
}

// A body without an end is not read to its end, and many at a time are bounded.
func TestIngress_EndlessBodies(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", nil)
	for _, path := range []string{"/queue", "/status"} {
		conn := f.dial(t)
		if _, err := io.WriteString(conn, wire("POST /api/"+token+path, "", "Transfer-Encoding: chunked")); err != nil {
			t.Fatal(err)
		}
		ended := make(chan int)
		go func() {
			sent := 0
			for chunk := []byte("10000\r\n" + strings.Repeat(" ", 1<<16) + "\r\n"); ; sent += 1 << 16 {
				if _, err := conn.Write(chunk); err != nil {
					break
				}
			}
			ended <- sent
		}()
		answers := readAnswers(t, conn, http.MethodPost)
		if len(answers) != 1 || answers[0].status != http.StatusRequestEntityTooLarge || !answers[0].last {
			t.Errorf("got %v, want one 413 and the connection closed", answers)
		}
		_ = conn.Close()
		if sent := <-ended; sent > 64<<20 {
			t.Errorf("the server took %d bytes", sent)
		}
	}
	if status, body := f.Post("/api/"+token+"/queue", one); status != http.StatusOK {
		t.Errorf("afterwards: got %d %s", status, body)
	}
}

// Who is slow is waited for as long as the limits say and no longer, and meanwhile others are served.
func TestIngress_SlowClients(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		memory := httpx.NewMemory()
		f := start(t, options{Memory: memory})
		defer f.end()
		token := f.Token("acme", func(a *streams.Account) { a.Plan.Rate = 0 })
		queue := "POST /api/" + token + "/queue"
		for _, test := range []struct {
			name, first, each string // sent at once, and then each second
			want              string // the answer's status and when the connection is closed
		}{
			{"headers that do not come", "POST /api", "", "[400] after 5s"},
			{"headers by the byte", "GET /api/x/get_messages HTTP/1.1\r\nHost: x\r\nX: ", "x", "[] after 5s"},
			{"a body that does not come", wire(queue, "", "Content-Length: 4000000"), "", "[400] after 15s"},
			{"a body by the byte", wire(queue, "[", "Content-Length: 4000000"), " ", "[400] after 15s"},
			{"chunks by the byte", wire(queue, "", "Transfer-Encoding: chunked"), "1\r\n \r\n", "[400] after 15s"},
			{"a report by the byte", wire("POST /api/"+token+"/status", "[", "Content-Length: 4000000"), " ", "[400] after 15s"},
			{"a body nobody asked for", wire("GET /api/x/get_messages", "", "Content-Length: 1000000000"), "x", "[401] after 0s"},
			{"nothing more", wire("GET /api/x/get_messages", ""), "", "[401] after 2m0s"},
		} {
			conn := f.dial(t)
			begun := time.Now()
			ended := make(chan struct{})
			var sending sync.WaitGroup
			sending.Go(func() {
				send := test.first
				for {
					if send != "" { // a pipe hands over nothing too
						if _, err := io.WriteString(conn, send); err != nil {
							return
						}
					}
					send = test.each
					select {
					case <-time.After(time.Second):
					case <-ended:
						return
					}
				}
			})
			answers := readAnswers(t, conn, "")
			got := make([]int, len(answers))
			for i, a := range answers {
				got[i] = a.status
			}
			if got := fmt.Sprint(got, " after ", time.Since(begun).Truncate(time.Second)); got != test.want {
				t.Errorf("%s: got %s, want %s", test.name, got, test.want)
			}
			close(ended)
			_ = conn.Close()
			sending.Wait()
		}
		// A crowd of them keeps nobody out: neither do those whose bodies do not come, nor those who do not read.
		var crowd []net.Conn
		for i := range 2000 {
			conn := f.dial(t)
			crowd = append(crowd, conn)
			send := wire(queue, "", "Content-Length: 4000000")
			if i%2 == 0 {
				send = wire("GET /api/"+token+"/get_messages", "")
			}
			if _, err := io.WriteString(conn, send); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if status, body := f.Post("/api/"+token+"/queue", one); status != http.StatusOK {
			t.Errorf("beside a crowd of slow clients: got %d %s", status, body)
		}
		for _, conn := range crowd {
			_ = conn.Close()
		}
		if got := f.Stored("ENQUEUE_0", "sms.enqueue.>"); got != 1 {
			t.Errorf("got %d stored, want 1", got)
		}
	})
}

// The metrics are for few at a time.
func TestIngress_MetricsCrowd(t *testing.T) {
	f := start(t, options{})
	reading, read := make(chan struct{}), make(chan struct{})
	f.Metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "slow"}, func() float64 {
		reading <- struct{}{}
		<-read
		return 1
	}))
	statuses := make(chan int, 4)
	var crowd sync.WaitGroup
	for range 4 {
		crowd.Go(func() {
			status, _ := f.Get("/metrics")
			statuses <- status
		})
		<-reading
	}
	if status, _ := f.Get("/metrics"); status != http.StatusServiceUnavailable {
		t.Errorf("a fifth one: got %d, want 503", status)
	}
	close(read)
	crowd.Wait()
	for range 4 {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("got %d, want 200", status)
		}
	}
}
