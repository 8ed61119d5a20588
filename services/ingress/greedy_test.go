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

	"github.com/trunkline-sms/trunkline/pkg/bustest"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/streams"
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
