package ingress_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// owner gives an account a login.
func owner(t *testing.T) func(*streams.Account) {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return func(a *streams.Account) { a.Login, a.Password, a.Plan.Rate = "owner", string(hash), 0 }
}

// Half-sent bodies of one account, or of strangers, keep nobody out; and a body that takes more than a minute on a slow
// line is taken.
func TestIngress_HalfSentBodies(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		f := start(t, options{Memory: httpx.NewMemory()})
		defer f.end()
		noRate := func(a *streams.Account) { a.Plan.Rate = 0 }
		evil, good := f.Token("evil", noRate), f.Token("good", noRate)
		f.Account("shop", owner(t))
		const login = `{"deviceUsername":"owner","password":"correct horse","phoneNumbers":["+4915112345678"],"message":"a"}`
		var sending sync.WaitGroup
		send := func(line, body string, less int) io.Closer {
			conn := f.dial(t)
			all := wire(line, body)
			sending.Go(func() { _, _ = io.WriteString(conn, all[:len(all)-less]) })
			return conn
		}
		large, small := "["+strings.Repeat(" ", 4<<20-2)+"]", `{"deviceUsername":"`+strings.Repeat("x", 64<<10-21)+`"}`
		slow := f.dial(t)
		items := "[" + strings.Repeat(`{"phone":"123456","message":"`+strings.Repeat("a", 100)+`"},`, 999) + `{"phone":"123456","message":"a"}]`
		sending.Go(func() {
			all := wire("POST /api/"+good+"/queue", items, closing)
			for len(all) > 0 {
				n := min(len(all), 2000)
				if _, err := io.WriteString(slow, all[:n]); err != nil {
					return
				}
				all = all[n:]
				time.Sleep(time.Second)
			}
		})
		var half []io.Closer
		for _, hostile := range []struct {
			line, body string
			n          int
		}{
			{"POST /api/" + evil + "/queue", large, 8}, {"POST /api/" + evil + "/status", large, 8}, {"POST /api/send-sms", small, 256},
		} {
			for range hostile.n {
				half = append(half, send(hostile.line, hostile.body, 1))
			}
			synctest.Wait()
		}
		for range 3 {
			for path, body := range map[string]string{
				"/api/" + good + "/queue":  one,
				"/api/" + good + "/status": `{"messages":[{"hash":"0123456789abcdef","status":2}]}`,
				"/api/send-sms":            login,
			} {
				if status, answer := f.Post(path, body); status != http.StatusOK {
					t.Errorf("%s beside half-sent bodies: got %d %s", strings.ReplaceAll(path, good, "…"), status, answer)
				}
			}
			time.Sleep(3 * time.Second)
		}
		answers := readAnswers(t, slow, http.MethodPost)
		if len(answers) != 1 || answers[0].status != http.StatusOK || !strings.Contains(answers[0].body, `"queued":1000`) {
			t.Errorf("a thousand messages over a slow line: got %.200v", answers)
		}
		_ = slow.Close()
		for _, conn := range half {
			_ = conn.Close()
		}
		sending.Wait()
	})
}

// Who has used up the rate of pulls can still report and post; and a long poll is one request, however long it waits.
func TestIngress_RatesApart(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		f := start(t, options{Memory: httpx.NewMemory()})
		defer f.end()
		path := "/api/" + f.Token("acme", func(a *streams.Account) { a.Plan.Rate = 3 })
		pull := func(query string, want int) {
			t.Helper()
			if status, body := f.Get(path + "/get_messages" + query); status != want {
				t.Errorf("a pull: got %d %s, want %d", status, body, want)
			}
		}
		pull("?wait=30", http.StatusOK)
		for range 3 {
			pull("", http.StatusOK)
		}
		pull("", http.StatusTooManyRequests)
		for what, body := range map[string]string{"/status": `{"messages":[{"hash":"0123456789abcdef","status":2}]}`, "/queue": one} {
			for range 3 {
				if status, answer := f.Post(path+what, body); status != http.StatusOK {
					t.Errorf("%s: got %d %s", what, status, answer)
				}
			}
			if status, _ := f.Post(path+what, body); status != http.StatusTooManyRequests {
				t.Errorf("%s beyond its rate: got %d", what, status)
			}
		}
	})
}

// Guesses count where they come from: behind a trusted proxy that is what it has seen, and nothing that a client wrote.
func TestIngress_Guesses(t *testing.T) {
	for name, proxies := range map[string][]string{"behind a proxy": {"127.0.0.1"}, "without one": {}} {
		t.Run(name, func(t *testing.T) {
			f := start(t, options{Config: func(c *ingress.Config) { c.TrustedProxies = proxies }})
			f.Account("shop", owner(t))
			try := func(password, from string) int {
				r, err := http.NewRequest(http.MethodGet, f.URL+"/3rdparty/v1/webhooks", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("owner:"+password)))
				r.Header.Set("X-Forwarded-For", from)
				status, _ := f.do(r)
				return status
			}
			guesses := 0
			for i := range 15 {
				if try(fmt.Sprint("guess", i), fmt.Sprintf("192.0.2.%d, 198.51.100.9", i)) == http.StatusUnauthorized {
					guesses++
				}
			}
			if guesses < 10 || guesses > 11 {
				t.Errorf("got %d guesses checked, want 10 and what a minute brings", guesses)
			}
			want := http.StatusOK
			if len(proxies) == 0 { // then all come from one address
				want = http.StatusTooManyRequests
			}
			if got := try("correct horse", "192.0.2.7"); got != want {
				t.Errorf("the owner from elsewhere: got %d, want %d", got, want)
			}
		})
	}
}

// Who asks for large pages and reads nothing has no more of them under way than its share, and nobody else is refused.
// What it is refused is not leased.
func TestIngress_UnreadPages(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		memory := httpx.NewMemory()
		f := start(t, options{Memory: memory})
		defer f.end()
		greedy, good := f.Token("greedy", nil), f.Token("good", nil)
		const pages, messages, length = 12, 60, 60_000
		ids := streams.NewIDs(time.Now, 1, time.Time{})
		text := event.Private(strings.Repeat("x", length))
		publish := func(name string, n int) {
			account := streams.AccountIDOf(name)
			for range n {
				m, err := event.Message(streams.EnqueueSubject(0, account, streams.Lane{}), event.Enqueued{ID: ids.Message(), Phone: "+40700000000", Text: text})
				if err == nil {
					_, err = f.Bus.JS.PublishMsg(t.Context(), m)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		publish("greedy", pages*messages)
		publish("good", messages)
		unread := 0
		for range pages {
			conn, err := memory.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := fmt.Fprintf(conn, "GET /api/%s/get_messages?limit=%d HTTP/1.1\r\nHost: x\r\n\r\n", greedy, messages); err != nil {
				t.Fatal(err)
			}
			status := make([]byte, len("HTTP/1.1 200"))
			if _, err := io.ReadFull(conn, status); err != nil { // and no more of it
				t.Fatal(err)
			}
			if string(status) != "HTTP/1.1 200" {
				break
			}
			unread++
		}
		// Half of 128 MiB, for what came and what is sent.
		if want := (64 << 20) / (2 * messages * length); unread > want || unread < want-1 {
			t.Errorf("got %d pages under way, want %d", unread, want)
		}
		if status, body := f.Get("/api/" + greedy + "/get_messages?limit=60"); status != http.StatusServiceUnavailable || !strings.Contains(body, `"code":"overloaded"`) {
			t.Errorf("one more: got %d %.100s, want 503", status, body)
		}
		if status, body := f.Get("/api/" + good + "/get_messages?limit=60"); status != http.StatusOK || len(body) < messages*length {
			t.Errorf("another account: got %d, %d bytes", status, len(body))
		}
	})
}
