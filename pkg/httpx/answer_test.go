package httpx_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// Answers have room as bodies do: nobody has more than he leaves to others.
func TestLimiter_Answers(t *testing.T) {
	g := httpx.NewLimiter(0, 160<<10)
	answer := func(who string) *httpx.Place { return g.Answer(httptest.NewRecorder(), who) }
	for range 3 { // nothing is counted that is not held any more
		first, second, other := answer("shop"), answer("shop"), answer("clinic")
		if first.Try(11<<10) || !first.Try(10<<10) || second.Try(1) {
			t.Error("tried: want a sixteenth of the room for all of one")
		}
		if err := first.Weigh(70 << 10); err != nil {
			t.Errorf("half of the room: got %v", err)
		}
		if err := second.Weigh(1 << 10); !overloaded(err) {
			t.Errorf("more: got %v, want overloaded", err)
		}
		if err := other.Weigh(40 << 10); err != nil {
			t.Errorf("of another: got %v", err)
		}
		first.Keep(100 << 10)
		first.Keep(20 << 10)
		if err := second.Weigh(20 << 10); err != nil {
			t.Errorf("after some was given back: got %v", err)
		}
		if err := second.Weigh(-20 << 10); err != nil {
			t.Errorf("given back: got %v", err)
		}
		for _, p := range []*httpx.Place{first, second, other} {
			p.Leave()
		}
	}
}

// answering serves answers of a size: the path says to whom.
func answering(t *testing.T, g *httpx.Limiter, size int, left chan<- string) (l *httpx.Memory, stop func()) {
	l, cancel, done := serve(t, httpx.ServerOptions{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		place := g.Answer(w, r.URL.Path)
		defer func() {
			place.Leave()
			left <- r.URL.Path
		}()
		if place.Weigh(int64(size)) != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		place.Send(w, http.StatusOK, "text/plain", zeros[:size])
	})})
	return l, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

func requested(t *testing.T, l *httpx.Memory, who string) net.Conn {
	t.Helper()
	conn, err := l.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", who); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A client that reads nothing of an answer loses it, at once where others need the room. One that reads slowly gets it whole.
func TestLimiter_SlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 20
		left := make(chan string, 100)
		l, stop := answering(t, httpx.NewLimiter(0, 4*size), size, left)
		begun := time.Now()
		slow := requested(t, l, "phone")
		read := make(chan int)
		go func() {
			resp, err := http.ReadResponse(bufio.NewReaderSize(slow, 16), nil)
			if err != nil {
				t.Error(err)
				close(read)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			total := 0
			for {
				n, err := io.CopyN(io.Discard, resp.Body, 8<<10) // 8 KiB a second: two minutes
				total += int(n)
				if err != nil {
					break
				}
				time.Sleep(time.Second)
			}
			read <- total
		}()
		synctest.Wait()
		for range 2 {
			defer requested(t, l, "hostile").Close()
			synctest.Wait()
		}
		status := func(who string) int {
			conn := requested(t, l, who)
			defer conn.Close()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			_, _ = io.Copy(io.Discard, resp.Body)
			return resp.StatusCode
		}
		if got := status("hostile"); got != http.StatusServiceUnavailable {
			t.Errorf("a third one of the same: got %d, want 503", got)
		}
		time.Sleep(6 * time.Second)
		if got := status("shop"); got != http.StatusOK {
			t.Errorf("another after 6 s: got %d", got)
		}
		for n := 0; n < 2; {
			if who := <-left; who == "/hostile" {
				n++
			}
		}
		time.Sleep(15 * time.Second)
		if got := <-read; got != size {
			t.Errorf("a slow reader got %d bytes of %d", got, size)
		}
		if took := time.Since(begun); took < 2*time.Minute {
			t.Errorf("it took %v, want more than a minute: it shall be longer than any answer may take in all", took)
		}
		_ = slow.Close()
		stop()
	})
}
