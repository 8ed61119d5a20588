package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/services/accounts"
)

// stopWithin is how long a server may take to end when it is told to.
const stopWithin = 5 * time.Second

// halfPost is a request whose body comes slowly.
type halfPost struct {
	conn net.Conn
	rest string
}

// begin sends the head and half of the body of a post of one message, and returns once the server reads the body.
func begin(t *testing.T, s *trunkline, token string, message sms) halfPost {
	t.Helper()
	address := strings.TrimPrefix(s.url, "http://")
	body, err := json.Marshal([]sms{message})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /api/queue HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		address, token, len(body))
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("got %q, %v, want the server to ask for the body", line, err)
	}
	half := len(body) / 2
	if _, err := conn.Write(body[:half]); err != nil {
		t.Fatal(err)
	}
	return halfPost{conn, string(body[half:])}
}

// finish sends the rest byte by byte, in about a second and a half, and gives the answer.
func (h halfPost) finish() (string, error) {
	pace := time.NewTicker(1500 * time.Millisecond / time.Duration(len(h.rest)))
	defer pace.Stop()
	for i := range h.rest {
		<-pace.C
		if _, err := io.WriteString(h.conn, h.rest[i:i+1]); err != nil {
			return "", err
		}
	}
	got, err := io.ReadAll(h.conn)
	return string(got), err
}

// closed says that the server takes no more connections.
func (s *trunkline) closed() bool {
	conn, err := new(net.Dialer).DialContext(s.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// A server that is told to stop answers what is in flight, stores it, and is gone in time, whatever its engine holds.
func TestStop(t *testing.T) {
	eachShardsAlone(t, func(t *testing.T, shards int) {
		s := launch(t, process, shards)
		h := s.host.(*processHost)
		crowd(s, many(300, 2000))
		token := s.account("shop", nil)
		a := s.api(token)

		testkit.Eventually(t, "phones are served, after all that was stored", func() bool {
			_, err := a.pull("early", 1, 0)
			return err == nil
		})
		polled := make(chan error, 1)
		go func() {
			page, err := a.pull("waiting", 10, 30)
			if err == nil && len(page) != 0 {
				err = fmt.Errorf("got %d messages", len(page))
			}
			polled <- err
		}()
		testkit.Eventually(t, "the phone is known", func() bool { return s.knows("shop", "waiting") })
		slow := begin(t, s, token, sms{number(1), text("slow", 1)})

		told := time.Now()
		s.running = false
		if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, "the server takes no more connections", s.closed)
		if err := <-polled; err != nil {
			t.Errorf("the long poll was answered: %v", err)
		}
		got, err := slow.finish()
		if err != nil || !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, `"queued":1`) {
			t.Errorf("the slow post was answered %q, %v", got, err)
		}
		if err := h.wait(); err != nil {
			t.Errorf("the server ended with: %v", err)
		}
		took := time.Since(told)
		t.Logf("stopped in %v", took)
		if took > stopWithin {
			t.Errorf("the server ended after %v, want at most %v", took, stopWithin)
		}
		s.client.CloseIdleConnections()

		s.Start()
		page := s.api(token).mustPull(t, "phone", 10, 0, 1)
		if page[0].Text != text("slow", 1) {
			t.Errorf("got %+v, want what was posted slowly", page)
		}
	})
}

// Every stop is a clean one, however soon it comes.
func TestStop_AtOnce(t *testing.T) {
	eachShards(t, func(t *testing.T, shards int) {
		s := launch(t, inside, shards)
		for range many(8, 20) {
			s.Stop()
			s.Start()
		}
	})
}

// crowd makes accounts, each with a message that was pulled, so that the engine keeps a consumer for each.
func crowd(s *trunkline, n int) {
	s.Helper()
	tokens := make([]string, n)
	s.withAccounts(func(book *accounts.Accounts) (uint64, error) {
		var g errgroup.Group
		var last atomic.Uint64
		g.SetLimit(32)
		plan := accounts.DefaultPlan()
		for i := range tokens {
			g.Go(func() error {
				made, err := book.Create(s.Context(), accounts.Spec{Name: fmt.Sprintf("crowd-%d", i), Plan: plan})
				tokens[i] = made.Token.Reveal()
				for seen := last.Load(); made.Revision > seen && !last.CompareAndSwap(seen, made.Revision); seen = last.Load() {
				}
				return err
			})
		}
		err := g.Wait()
		return last.Load(), err
	})
	var g errgroup.Group
	g.SetLimit(64)
	for i, token := range tokens {
		logs.secret(token)
		g.Go(func() error {
			a := s.api(token)
			if got, err := a.post("", sms{number(i), text("crowd", i)}); err != nil || got.status != http.StatusOK {
				return fmt.Errorf("post: got %v, %w", got, err)
			}
			page, err := a.pull("phone", 1, 0)
			for tries := 0; err != nil && tries < 100 && rest(s.Context(), retry); tries++ { // all come at once
				page, err = a.pull("phone", 1, 0)
			}
			if err != nil || len(page) != 1 {
				return fmt.Errorf("pull: got %d messages, %w", len(page), err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		s.Fatal(err)
	}
	if got := s.consumers(); got < n {
		s.Fatalf("got %d consumers, want one for each of %d accounts", got, n)
	}
}
