package httpx_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// posted is a request with a body of a stated length, or of none for -1.
func posted(t *testing.T, body io.Reader, length int64) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/", body)
	r.ContentLength = length
	return r
}

func overloaded(err error) bool {
	f := fault.As(err)
	return f != nil && f.Kind == fault.Unavailable && f.Code == "overloaded" && f.RetryAfter == time.Second
}

func TestGate_Requests(t *testing.T) {
	g := httpx.NewGate(4, 1<<20)
	enter := func() (func(), error) {
		_, leave, err := g.Enter(posted(t, strings.NewReader("12345"), 5), 10, "shop")
		return leave, err
	}
	first, err := enter()
	if err != nil {
		t.Fatal(err)
	}
	second, err := enter()
	if err != nil {
		t.Fatal(err)
	}
	// It is refused before it is read.
	if _, _, err := g.Enter(posted(t, iotest.ErrReader(io.ErrClosedPipe), 5), 10, "shop"); !overloaded(err) {
		t.Errorf("a third one: got %v, want overloaded", err)
	}
	first()
	if first, err = enter(); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	first()
	second()
	// What is refused takes no place.
	for range 3 {
		if _, _, err := g.Enter(posted(t, strings.NewReader("12345678901"), 11), 10, "shop"); !fault.Is(err, fault.TooLarge) {
			t.Errorf("too large: got %v", err)
		}
		if _, _, err := g.Enter(posted(t, strings.NewReader("1"), 5), 10, "shop"); !fault.Is(err, fault.Invalid) {
			t.Errorf("broken off: got %v", err)
		}
	}
	if _, err := enter(); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

func TestGate_Bytes(t *testing.T) {
	const bound, large = 256 << 10, 200 << 10
	for name, length := range map[string]int64{"stated": large, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			g := httpx.NewGate(100, bound)
			content := bytes.Repeat([]byte("0123456789"), large/10)
			enter := func() ([]byte, func(), error) {
				return g.Enter(posted(t, bytes.NewReader(content), length), 1<<20, "shop")
			}
			for range 3 { // nothing is counted that is not held any more
				body, leave, err := enter()
				if err != nil || !bytes.Equal(body, content) {
					t.Fatalf("got %d bytes, %v, want %d", len(body), err, len(content))
				}
				if _, _, err := enter(); !overloaded(err) {
					t.Errorf("another one: got %v, want overloaded", err)
				}
				leave()
			}
		})
	}
}

// A crowd of one sender's leaves room for the others.
func TestGate_Share(t *testing.T) {
	g := httpx.NewGate(4, 1<<20)
	enter := func(who string) (func(), error) {
		_, leave, err := g.Enter(posted(t, strings.NewReader("12345"), 5), 10, who)
		return leave, err
	}
	var leave func()
	for i, who := range []string{"flood", "flood", "shop", "clinic"} {
		var err error
		if leave, err = enter(who); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if i < 1 {
			continue
		}
		if _, err := enter("flood"); !overloaded(err) {
			t.Errorf("a third one of the flood: got %v, want overloaded", err)
		}
	}
	if _, err := enter("bank"); !overloaded(err) {
		t.Errorf("a fifth request: got %v, want overloaded", err)
	}
	leave()
	if _, err := enter("bank"); err != nil {
		t.Errorf("after one has left: %v", err)
	}
}

// Bodies that are announced and do not come keep nobody out.
func TestGate_SlowBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := httpx.NewGate(2, 1<<20)
		r, w := io.Pipe()
		ended := make(chan error)
		for range 10 {
			go func() {
				_, _, err := g.Enter(posted(t, r, 4<<20), 4<<20, "slow")
				ended <- err
			}()
		}
		synctest.Wait()
		_, leave, err := g.Enter(posted(t, strings.NewReader("12345"), 5), 10, "shop")
		if err != nil {
			t.Fatalf("beside slow ones: %v", err)
		}
		leave()
		_ = w.Close()
		for range 10 {
			if err := <-ended; !fault.Is(err, fault.Invalid) {
				t.Errorf("broken off: got %v", err)
			}
		}
	})
}
