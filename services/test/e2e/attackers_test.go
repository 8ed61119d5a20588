package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// attackers are all that is done against the server, at paces that its 2 processors bear.
func attackers() []attacker {
	return slices.Concat(crowds(), bodies(), tenants(), guessers())
}

// crowds hold connections, or ask what costs more than the question.
func crowds() []attacker {
	return []attacker{
		{name: "connections-open", workers: 32, rate: 200, act: func(ctx context.Context, t *troop, _ int) string {
			return t.raw(ctx, func(c net.Conn) error { return c.Close() })
		}},
		{name: "connections-idle", workers: 2000, rate: 300, act: func(ctx context.Context, t *troop, n int) string {
			return t.raw(ctx, func(c net.Conn) error {
				if n%2 == 0 {
					return nil // for ever
				}
				_, err := io.WriteString(c, "GET /api/x/get_messages HTTP/1.1\r\nX-Forwarded-For: "+stranger(n)+"\r\n")
				return err
			})
		}},
		{name: "metrics", once: "200", workers: 16, rate: 20, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.call(ctx, http.MethodGet, "/metrics", "", forwarded, stranger(n))
			return said
		}},
		{name: "health", once: "200", workers: 32, rate: 100, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.call(ctx, http.MethodGet, []string{"/health/ready", "/api/health", thirdparty + "/health"}[n%3], "", forwarded, stranger(n))
			return said
		}},
		{name: "headers-huge", once: "431", workers: 8, rate: 20, act: func(ctx context.Context, t *troop, n int) string {
			return t.raw(ctx, func(c net.Conn) error {
				_, err := fmt.Fprintf(c, "GET /api/get_messages HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nX: %s\r\n\r\n", stranger(n), strings.Repeat("x", 1<<20))
				return err
			})
		}},
		{name: "tokens-invented", once: "401", workers: 32, rate: 100, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.call(ctx, http.MethodGet, "/api/"+hexDigits(64)+"/get_messages?wait=30", "", forwarded, stranger(n))
			return said
		}},
		{name: "polls-named", workers: 2100, rate: 200, act: func(ctx context.Context, t *troop, n int) string {
			return t.poll(ctx, t.Phones, fmt.Sprintf("&device=phone-%d", n%900))
		}},
		{name: "polls-nameless", workers: 2100, rate: 200, act: func(ctx context.Context, t *troop, _ int) string {
			return t.poll(ctx, t.Phones, "")
		}},
		{name: "polls-woken", once: "200", workers: 4, rate: 5, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.call(ctx, http.MethodPost, "/api/"+t.Phones+"/queue", `[{"phone":"+12025550100","message":"x"}]`)
			return said
		}},
	}
}

// poll waits for work over a connection of its own.
func (t *troop) poll(ctx context.Context, token, query string) string {
	return t.raw(ctx, func(c net.Conn) error {
		_, err := fmt.Fprintf(c, "GET /api/%s/get_messages?limit=1&wait=30%s HTTP/1.1\r\nHost: x\r\n\r\n", token, query)
		return err
	})
}

// bodies are requests that come slowly, or never end.
func bodies() []attacker {
	half := func(path func(*troop) string, announced, sent int, address func(int) string) func(context.Context, *troop, int) string {
		return func(ctx context.Context, t *troop, n int) string {
			return t.raw(ctx, func(c net.Conn) error {
				_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nContent-Length: %d\r\n\r\n[%s", path(t), address(n), announced, strings.Repeat(" ", sent))
				return err
			})
		}
	}
	tenant := func(int) string { return "192.0.2.66" }
	queue := func(t *troop) string { return "/api/" + t.Token + "/queue" }
	nodes := func(*troop) string { return "/api/send-sms" }
	return []attacker{
		{name: "bodies-half", workers: 32, rate: 4, burst: 4, act: half(queue, 4<<20, 3<<20, tenant)},
		{name: "bodies-half-reports", workers: 32, rate: 4, burst: 4, act: half(func(t *troop) string { return "/api/" + t.Token + "/status" }, 4<<20, 3<<20, tenant)},
		{name: "bodies-half-strangers", workers: 512, rate: 100, burst: 64, act: half(nodes, 64<<10, 32<<10, stranger)},
		{name: "bodies-dripping", workers: 64, rate: 8, act: func(ctx context.Context, t *troop, n int) string {
			path, address := queue(t), tenant(n)
			if n%2 == 0 {
				path, address = nodes(t), stranger(n)
			}
			return t.raw(ctx, func(c net.Conn) error {
				_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nContent-Length: %d\r\n\r\n", path, address, 60<<10)
				for err == nil && rest(ctx, 500*time.Millisecond) {
					_, err = io.WriteString(c, strings.Repeat(" ", 50))
				}
				return err
			})
		}},
		{name: "json-deep", once: "400", workers: 4, rate: 4, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.call(ctx, http.MethodPost, queue(t), []string{strings.Repeat("[", 1<<20), `[{"a":` + strings.Repeat(`{"a":`, 1<<18)}[n%2])
			return said
		}},
		{name: "pages-unread", workers: 64, rate: 16, act: func(ctx context.Context, t *troop, n int) string {
			return t.unread(ctx, n)
		}},
	}
}

// unread asks for what is large, and reads none of it.
func (t *troop) unread(ctx context.Context, n int) string {
	dialer := net.Dialer{}
	conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(t.URL, "http://"))
	if err != nil {
		return "no connection"
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	if n%2 == 0 {
		_, err = fmt.Fprintf(conn, "GET /api/%s/get_messages?limit=200 HTTP/1.1\r\nHost: x\r\n\r\n", t.Token)
	} else {
		_, err = fmt.Fprintf(conn, "GET %s/messages?limit=100&includeContent=true HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\n\r\n", thirdparty, t.basic(t.Login, t.Password))
	}
	if err != nil {
		return "closed"
	}
	rest(ctx, 20*time.Second)
	return "not read"
}

// tenants do with an account what it may, and more of it than anybody should.
func tenants() []attacker {
	special := strings.Repeat("<>&", 31_000/3)
	long := strings.Repeat("<>&\u20ac", 250)
	return []attacker{
		{name: "reports-repeated", once: "200", workers: 8, rate: 10, act: func(ctx context.Context, t *troop, n int) string {
			t.first.Do(func() { t.deliver(ctx) })
			device := fmt.Sprintf("again-%d", n)
			if n%2 == 0 {
				device = ""
			}
			return t.report(ctx, device, t.sent)
		}},
		{name: "reports-invented", once: "200", workers: 8, rate: 10, act: func(ctx context.Context, t *troop, n int) string {
			items := make([]string, 1000)
			for i := range items {
				age := time.Duration(rand.Int64N(int64(30 * 24 * time.Hour)))
				at := time.Since(streams.Epoch) - age
				id := streams.MessageID(uint64(at.Milliseconds())<<22 | rand.Uint64N(1<<22))
				items[i] = fmt.Sprintf(`{"hash":%q,"status":%d}`, id, success)
			}
			return t.report(ctx, fmt.Sprintf("new-%d", n), strings.Join(items, ","))
		}},
		{name: "posts-special", once: "202", workers: 59, rate: 2, burst: 59, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.post(ctx, n, 100, fmt.Sprintf(`"textMessage":{"text":%q}`, special))
			return said
		}},
		{name: "posts-long", once: "200", workers: 8, rate: 1, act: func(ctx context.Context, t *troop, _ int) string {
			items := make([]string, 1000)
			for i := range items {
				items[i] = fmt.Sprintf(`{"phone":"+1204%07d","message":%q}`, i, long)
			}
			said, _ := t.call(ctx, http.MethodPost, "/api/"+t.Token+"/queue", "["+strings.Join(items, ",")+"]")
			return said
		}},
		{name: "posts-keyed", once: "200", workers: 16, rate: 40, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.call(ctx, http.MethodPost, "/api/"+t.Token+"/queue", fmt.Sprintf(`[{"phone":"+12025550100","message":"%d"}]`, n), "Idempotency-Key", fmt.Sprint("key-", n/2))
			return said
		}},
		{name: "posts-scheduled", once: "202", workers: 8, rate: 5, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.post(ctx, n, 100, `"textMessage":{"text":"x"},`+t.due())
			return said
		}},
		{name: "posts-scheduled-long", once: "202", workers: 8, rate: 0.5, burst: 5, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.post(ctx, n, 100, fmt.Sprintf(`"textMessage":{"text":%q},%s`, special, t.due()))
			return said
		}},
		{name: "posts-urgent", once: "202", workers: 8, rate: 4, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.post(ctx, n, 100, fmt.Sprintf(`"textMessage":{"text":"x"},"priority":%d`, []int{127, -128}[n%2]))
			return said
		}},
		{name: "posts-cancelled", once: "200", workers: 8, rate: 10, act: func(ctx context.Context, t *troop, n int) string {
			said, got := t.post(ctx, n, 20, `"textMessage":{"text":"x"}`)
			if said == "202" {
				said, _ = t.call(ctx, http.MethodDelete, thirdparty+"/messages/"+idOf(got), "", "Authorization", t.basic(t.Login, t.Password))
			}
			return said
		}},
		{name: "pulls", once: "200", workers: 16, rate: 20, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.call(ctx, http.MethodGet, "/api/"+t.Token+"/get_messages?limit=200", "")
			return said
		}},
		{name: "lists", once: "200", workers: 8, rate: 5, act: func(ctx context.Context, t *troop, n int) string {
			said, _ := t.call(ctx, http.MethodGet, fmt.Sprintf("%s/messages?limit=100&offset=%d", thirdparty, n%100*100), "", "Authorization", t.basic(t.Login, t.Password))
			return said
		}},
		{name: "sessions", once: "201", workers: 8, rate: 20, act: func(ctx context.Context, t *troop, n int) string {
			said, got := t.call(ctx, http.MethodPost, thirdparty+"/auth/token", `{"ttl":3600,"scopes":["messages:send"]}`, "Authorization", t.basic(t.Login, t.Password))
			if said == "201" && n%2 == 0 {
				said, _ = t.call(ctx, http.MethodDelete, thirdparty+"/auth/token/"+idOf(got), "", "Authorization", t.basic(t.Login, t.Password))
			}
			return said
		}},
		{name: "webhooks", once: "204", workers: 8, rate: 20, act: func(ctx context.Context, t *troop, n int) string {
			id := fmt.Sprint("hook-", n)
			said, _ := t.call(ctx, http.MethodPost, thirdparty+"/webhooks", fmt.Sprintf(`{"id":%q,"url":"https://example.org","event":"sms:sent"}`, id), "Authorization", t.basic(t.Login, t.Password))
			if said == "201" {
				said, _ = t.call(ctx, http.MethodDelete, thirdparty+"/webhooks/"+id, "", "Authorization", t.basic(t.Login, t.Password))
			}
			return said
		}},
		{name: "devices", once: "204", workers: 8, rate: 20, act: func(ctx context.Context, t *troop, n int) string {
			name := fmt.Sprint("gone-", n)
			said, _ := t.call(ctx, http.MethodGet, "/api/"+t.Token+"/get_messages?limit=1&device="+name, "")
			if said == "200" {
				id := streams.DeviceIDOf(t.Account, name)
				said, _ = t.call(ctx, http.MethodDelete, thirdparty+"/devices/"+id.String(), "", "Authorization", t.basic(t.Login, t.Password))
			}
			return said
		}},
	}
}

// due is when all that is scheduled is due together: ten seconds from the start, and then each minute.
func (t *troop) due() string {
	due := t.begun.Add(10 * time.Second).Truncate(time.Second)
	for !due.After(time.Now().Add(time.Second)) {
		due = due.Add(time.Minute)
	}
	return fmt.Sprintf(`"scheduleAt":%q`, due.UTC().Format(time.RFC3339))
}

// post posts to so many recipients, with that in the body too.
func (t *troop) post(ctx context.Context, n, recipients int, with string) (said string, got []byte) {
	numbers := make([]string, recipients)
	for i := range numbers {
		numbers[i] = fmt.Sprintf(`"+1202%07d"`, (2_000_000+n*recipients+i)%10_000_000)
	}
	return t.call(ctx, http.MethodPost, thirdparty+"/messages", fmt.Sprintf(`{"phoneNumbers":[%s],%s}`, strings.Join(numbers, ","), with),
		"Authorization", t.basic(t.Login, t.Password), "Content-Type", "application/json")
}

// deliver posts and pulls what is then reported again and again.
func (t *troop) deliver(ctx context.Context) {
	items := slices.Repeat([]string{`{"phone":"+12025550100","message":"x"}`}, 1000)
	_, _ = t.call(ctx, http.MethodPost, "/api/"+t.Token+"/queue", "["+strings.Join(items, ",")+"]")
	var all []string
	for range 5 {
		_, got := t.call(ctx, http.MethodGet, "/api/"+t.Token+"/get_messages?limit=200", "")
		var page []outgoing
		_ = json.Unmarshal(got, &page)
		for _, m := range page {
			all = append(all, fmt.Sprintf(`{"hash":%q,"status":%d}`, m.Hash, success))
		}
	}
	t.sent = strings.Join(all, ",")
}

func (t *troop) report(ctx context.Context, device, items string) string {
	said, _ := t.call(ctx, http.MethodPost, "/api/"+t.Token+"/status", fmt.Sprintf(`{"device":%q,"messages":[%s]}`, device, items))
	return said
}

func idOf(answer []byte) string {
	var got struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(answer, &got)
	return got.ID
}

func (t *troop) basic(login, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(login+":"+password))
}

const forwarded = "X-Forwarded-For"

// guessers try passwords, of the good account and of logins that nobody has.
func guessers() []attacker {
	basic := func(login func(*troop, int) string) func(context.Context, *troop, int) string {
		return func(ctx context.Context, t *troop, n int) string {
			said, _ := t.call(ctx, http.MethodGet, thirdparty+"/messages?limit=1", "", "Authorization", t.basic(login(t, n), hexDigits(12)), forwarded, stranger(n))
			return said
		}
	}
	nodes := func(login func(*troop, int) string) func(context.Context, *troop, int) string {
		return func(ctx context.Context, t *troop, n int) string {
			said, _ := t.call(ctx, http.MethodPost, "/api/send-sms", fmt.Sprintf(`{"deviceUsername":%q,"password":%q,"phoneNumbers":["+12025550100"],"message":"x"}`, login(t, n), hexDigits(12)),
				forwarded, stranger(n), "Content-Type", "application/json")
			return said
		}
	}
	victim := func(t *troop, _ int) string { return t.Victim }
	nobody := func(_ *troop, n int) string { return fmt.Sprint("nobody-", n) }
	return []attacker{
		{name: "guesses", once: "401", workers: 16, rate: 20, act: basic(victim)},
		{name: "guesses-nodes", once: "401", workers: 16, rate: 20, act: nodes(victim)},
		{name: "guesses-random", once: "401", workers: 16, rate: 10, act: basic(nobody)},
		{name: "guesses-random-nodes", once: "401", workers: 16, rate: 10, act: nodes(nobody)},
	}
}
