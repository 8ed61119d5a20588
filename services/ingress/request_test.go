package ingress_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// dial makes a connection.
func (f *fixture) dial(t *testing.T) net.Conn {
	t.Helper()
	dial := func() (net.Conn, error) { return net.Dial("tcp", strings.TrimPrefix(f.URL, "http://")) }
	if f.o.Memory != nil {
		dial = func() (net.Conn, error) { return f.o.Memory.Dial(t.Context()) }
	}
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// raw sends bytes over a connection of its own, and gives the answers that come until the server closes it.
func (f *fixture) raw(t *testing.T, request []byte) []wireAnswer {
	t.Helper()
	conn := f.dial(t)
	defer conn.Close()
	written := make(chan struct{})
	go func() {
		defer close(written)
		// The server need not read all of it.
		_, _ = conn.Write(request)
	}()
	method, _, _ := strings.Cut(string(request), " ")
	answers := readAnswers(t, conn, method)
	_ = conn.Close()
	<-written
	return answers
}

// within is the same one in a test of this test.
func (f *fixture) within(t testing.TB) *fixture {
	sub := *f
	sub.t = t
	return &sub
}

type wireAnswer struct {
	status int
	header http.Header
	body   string
	last   bool // the server closes the connection
}

func (a wireAnswer) String() string { return fmt.Sprintf("%d %.200s", a.status, a.body) }

// readAnswers reads the answers to requests of one method until the connection is closed.
func readAnswers(t *testing.T, conn io.Reader, method string) (all []wireAnswer) {
	t.Helper()
	reader := bufio.NewReader(conn)
	for {
		if _, err := reader.Peek(1); err != nil {
			return all
		}
		response, err := http.ReadResponse(reader, &http.Request{Method: method})
		if errors.Is(err, syscall.ECONNRESET) {
			return all
		}
		if err != nil {
			t.Fatalf("no answer of HTTP: %v", err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if errors.Is(err, syscall.ECONNRESET) { // what is no request of HTTP need not get all of its answer
			return all
		}
		if err != nil {
			t.Fatalf("an answer breaks off: %v", err)
		}
		all = append(all, wireAnswer{response.StatusCode, response.Header, string(body), response.Close})
	}
}

// ofHTTP is a refusal of what is no request of HTTP at all: the library's own, after which it closes the connection.
var ofHTTP = regexp.MustCompile(`^(4[0-9][0-9]|501|505) [A-Z][A-Za-z :-]+$`)

// wellFormed says whether an answer is one of the dialect, or of HTTP itself.
func (a wireAnswer) wellFormed() error {
	if !utf8.ValidString(a.body) {
		return fmt.Errorf("the answer is not UTF-8")
	}
	if strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		if !a.last || !ofHTTP.MatchString(a.body) {
			return fmt.Errorf("got %v", a)
		}
		return nil
	}
	if a.status >= 500 {
		return fmt.Errorf("got %v", a)
	}
	if len(a.body) == 0 && (a.header.Get("Content-Length") != "0" || a.header.Get("Content-Type") == "") { // of HEAD, or of OPTIONS *
		return nil
	}
	var got any
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		return fmt.Errorf("got %v: %w", a, err)
	}
	object, isObject := got.(map[string]any)
	if a.status == http.StatusOK {
		if _, isArray := got.([]any); !isArray && object["ok"] == nil && object["status"] == nil {
			return fmt.Errorf("got %v", a)
		}
		return nil
	}
	// A post of which no item is valid is answered with the errors of the items.
	said, _ := object["error"].(string)
	if !isObject || said == "" && object["ok"] != false {
		return fmt.Errorf("got %v", a)
	}
	return nil
}

// FuzzRequest: whatever somebody sends, the answer is the dialect's or a refusal of HTTP, never the server's failure;
// neither it nor the log holds the token, the key or the text; and what is not answered 200 is not stored.
func FuzzRequest(f *testing.F) {
	fix := start(f, options{})
	token := fix.Token("acme", nil)
	const text = "secret-text-"
	const body = `[{"phone":"+1234567890","message":"` + text + `1"}]`
	for _, seed := range []struct{ method, target, bearer, key, body string }{
		{"POST", "/api/TOKEN/queue", "", "", body},
		{"POST", "/api/queue", "Bearer TOKEN", "a key", body},
		{"POST", "/api/queue", "bearer  TOKEN ", "\x00", body},
		{"POST", "/api/TOKEN/queue", "", strings.Repeat("k", 256), `{"phone":1}`},
		{"POST", "/api/TOKEN/status", "", "", `{"device":"a","messages":[{"hash":"01a1818a21400000","status":2}]}`},
		{"POST", "/api/status", "Basic TOKEN", "", `{"messages":[{"hash":5,"status":1e400}]}`},
		{"GET", "/api/TOKEN/get_messages?limit=-1&device=%00", "", "", ""},
		{"GET", "/api/TOKEN/get_messages?limit=99999999999999999999&device=a%2Fb;c=d&limit=1", "", "", ""},
		{"GET", "/api/TOKEN/../TOKEN//queue", "", "", ""},
		{"GET", "/api/%54OKEN/get_messages", "", "", ""},
		{"GET", "/api/TOKEN%2Fqueue", "", "", ""},
		{"GET", "/api/TOKEN%00/get_messages?%zz", "", "", ""},
		{"HEAD", "/health/live", "", "", ""},
		{"OPTIONS", "*", "", "", ""},
		{"CONNECT", "x:1", "", "", ""},
		{"POST", "http://x/api/TOKEN/queue", "", "", "[" + strings.Repeat(`[`, 20000)},
		{"PUT", "/api/TOKEN/queue", "", "", "\xff"},
		{"GET", "/ HTTP/9.9", "", "", ""},
	} {
		f.Add(seed.method, seed.target, seed.bearer, seed.key, []byte(seed.body))
	}
	stored := 0
	f.Fuzz(func(t *testing.T, method, target, bearer, key string, body []byte) {
		if strings.Contains(strings.ToLower(target), "wait") || strings.Contains(target, "%") && strings.Contains(target, "t=") {
			t.Skip() // it would wait
		}
		line := strings.NewReplacer("TOKEN", token, "\r", "", "\n", "") // what comes is one request
		method, target, bearer, key = line.Replace(method), line.Replace(target), line.Replace(bearer), line.Replace(key)
		var b bytes.Buffer
		fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", method, target)
		if bearer != "" {
			fmt.Fprintf(&b, "Authorization: %s\r\n", bearer)
		}
		if key != "" {
			fmt.Fprintf(&b, "Idempotency-Key: %s\r\n", key)
		}
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
		for _, a := range fix.raw(t, b.Bytes()) {
			if err := a.wellFormed(); err != nil {
				t.Errorf("%q: %v", b.String(), err)
			}
			all := fmt.Sprint(a.header, a.body)
			if strings.Contains(all, token) || strings.Contains(all, text) && !strings.Contains(a.body, `"text":"`+text) {
				t.Errorf("%q is answered with a secret: %v", b.String(), a)
			}
			var got struct {
				Queued int `json:"queued"`
			}
			if a.status == http.StatusOK && a.header.Get("Idempotent-Replayed") == "" && json.Unmarshal([]byte(a.body), &got) == nil {
				stored += got.Queued
			}
		}
		for _, line := range fix.Logs.TakeAll() {
			if all := fmt.Sprint(line.Message, line.ContextMap()); strings.Contains(all, token) || strings.Contains(all, text) {
				t.Errorf("%q is logged: %s", b.String(), all)
			}
		}
		if got := fix.within(t).Stored(streams.EnqueueStream(0), "sms.enqueue.>"); got != stored {
			t.Errorf("%q: got %d stored, want %d", b.String(), got, stored)
		}
	})
}

// FuzzParts: whatever another part asks an ingress, or tells it, the answer is of its form or a refusal, and senders are
// served as before.
func FuzzParts(f *testing.F) {
	fix := start(f, options{})
	token := fix.Token("acme", nil)
	for _, seed := range []string{
		`{"revision":1}`, `{"revision":18446744073709551615}`, `{"leader":-1}`, `{"leader":18446744073709551615}`, `null`, `5`, "\xff",
		`{"by":"x","tokens":[{"token":"a","rate":-1,"count":9223372036854775807},{"token":"b","rate":9223372036854775807,"count":1}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		bustest.AskRaw[request.Saw](t, fix.Bus, request.IngressSeen(0), data)
		bustest.AskRaw[request.Grants](t, fix.Bus, request.IngressGrants(0), data)
		if err := fix.Bus.Conn.Publish(request.IngressUsed, data); err != nil {
			t.Fatal(err)
		}
		if status, body := fix.within(t).Get("/api/" + token + "/get_messages"); status != http.StatusOK {
			t.Fatalf("%q: got %d %s", data, status, body)
		}
	})
}
