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

// enter posts a body of five bytes.
func enter(t *testing.T, g *httpx.Limiter, who string) (*httpx.Place, error) {
	_, place, err := g.Enter(httptest.NewRecorder(), posted(t, strings.NewReader("12345"), 5), 10, who)
	return place, err
}

func TestLimiter_Requests(t *testing.T) {
	g := httpx.NewLimiter(4, 1<<20)
	first, err := enter(t, g, "shop")
	if err != nil {
		t.Fatal(err)
	}
	second, err := enter(t, g, "shop")
	if err != nil {
		t.Fatal(err)
	}
	// It is refused before it is read.
	if _, _, err := g.Enter(httptest.NewRecorder(), posted(t, iotest.ErrReader(io.ErrClosedPipe), 5), 10, "shop"); !overloaded(err) {
		t.Errorf("a third one: got %v, want overloaded", err)
	}
	first.Leave()
	if first, err = enter(t, g, "shop"); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	first.Leave()
	second.Leave()
	// What is refused takes no place.
	for range 3 {
		if _, _, err := g.Enter(httptest.NewRecorder(), posted(t, strings.NewReader("12345678901"), 11), 10, "shop"); !fault.Is(err, fault.TooLarge) {
			t.Errorf("too large: got %v", err)
		}
		if _, _, err := g.Enter(httptest.NewRecorder(), posted(t, strings.NewReader("1"), 5), 10, "shop"); !fault.Is(err, fault.Invalid) {
			t.Errorf("broken off: got %v", err)
		}
	}
	if _, err := enter(t, g, "shop"); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

func TestLimiter_Bytes(t *testing.T) {
	const bound, large = 512 << 10, 200 << 10
	for name, length := range map[string]int64{"stated": large, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			g := httpx.NewLimiter(100, bound)
			content := bytes.Repeat([]byte("0123456789"), large/10)
			enter := func() ([]byte, *httpx.Place, error) {
				return g.Enter(httptest.NewRecorder(), posted(t, bytes.NewReader(content), length), 1<<20, "shop")
			}
			for range 3 { // nothing is counted that is not held any more
				body, place, err := enter()
				if err != nil || !bytes.Equal(body, content) {
					t.Fatalf("got %d bytes, %v, want %d", len(body), err, len(content))
				}
				if _, _, err := enter(); !overloaded(err) {
					t.Errorf("another one: got %v, want overloaded", err)
				}
				place.Leave()
			}
		})
	}
}

// What is made of a request counts before it is made.
func TestLimiter_Weigh(t *testing.T) {
	g := httpx.NewLimiter(100, 1<<20)
	for range 3 {
		shop, err := enter(t, g, "shop")
		if err != nil {
			t.Fatal(err)
		}
		if err := shop.Weigh(400 << 10); err != nil {
			t.Errorf("less than half: got %v", err)
		}
		if err := shop.Weigh(200 << 10); !overloaded(err) {
			t.Errorf("more than half: got %v, want overloaded", err)
		}
		clinic, err := enter(t, g, "clinic")
		if err != nil {
			t.Fatal(err)
		}
		if err := clinic.Weigh(300 << 10); err != nil {
			t.Errorf("of another sender: got %v", err)
		}
		shop.Leave()
		clinic.Leave()
	}
}

// Nobody has more than he leaves to others, so a newcomer always finds room.
func TestLimiter_Share(t *testing.T) {
	g := httpx.NewLimiter(512, 64<<20)
	inside := map[string]int{}
	var last *httpx.Place
	for _, who := range []string{"a", "b", "c", "d", "e"} {
		for {
			place, err := enter(t, g, who)
			if err != nil {
				if !overloaded(err) {
					t.Fatal(err)
				}
				break
			}
			last = place
			inside[who]++
		}
	}
	if inside["a"] != 256 || inside["b"] != 128 || inside["e"] != 16 {
		t.Errorf("got %v inside, want half of the room for each that comes", inside)
	}
	last.Leave()
	if _, err := enter(t, g, "f"); err != nil {
		t.Errorf("another sender: got %v", err)
	}
}

// Bodies that are announced and do not come keep nobody out.
func TestLimiter_SlowBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := httpx.NewLimiter(2, 1<<20)
		r, w := io.Pipe()
		ended := make(chan error)
		for range 10 {
			go func() {
				_, _, err := g.Enter(httptest.NewRecorder(), posted(t, r, 4<<20), 4<<20, "slow")
				ended <- err
			}()
		}
		synctest.Wait()
		place, err := enter(t, g, "shop")
		if err != nil {
			t.Fatalf("beside slow ones: %v", err)
		}
		place.Leave()
		_ = w.Close()
		for range 10 {
			if err := <-ended; !fault.Is(err, fault.Invalid) {
				t.Errorf("broken off: got %v", err)
			}
		}
	})
}
