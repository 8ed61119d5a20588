package bench

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestClientDo(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	long := strings.Repeat("x", 100_000) // comes in chunks
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RequestURI() {
		case "/api/" + token + "/get_messages?device=a&limit=5&wait=0":
			_, _ = w.Write([]byte(long))
		default:
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = w.Write([]byte(`{"error":"Too many","code":"rate_limited"}`))
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, err := dial(ctx, server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	as := caller{server.Listener.Addr().String(), token}

	got, err := c.do(ctx, as.pull("a", 5, 0))
	if err != nil || string(got) != long {
		t.Errorf("got %d bytes and error %v, want the answer", len(got), err)
	}
	post, err := as.post(1)
	if err != nil {
		t.Fatal(err)
	}
	// On the same connection.
	_, err = c.do(ctx, post)
	var refused *refusal
	if !errors.As(err, &refused) || refused.status != 429 || refused.code != "rate_limited" || strings.Contains(err.Error(), token) {
		t.Errorf("got error %v, want the refusal without the token", err)
	}
	cancel()
	if _, err := c.do(ctx, post); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want that it was cancelled", err)
	}
}

func TestReportOfAPage(t *testing.T) {
	as := caller{"127.0.0.1:1", "token"}
	request, n, err := as.report("a", []byte(`[{"phone":"+15550000000","text":"x","hash":"0123456789abcdef"}]`))
	if err != nil || n != 1 {
		t.Fatalf("got %d messages and error %v, want 1", n, err)
	}
	_, body, _ := strings.Cut(string(request), "\r\n\r\n")
	if want := `{"device":"a","messages":[{"hash":"0123456789abcdef","status":2}]}`; body != want {
		t.Errorf("got %s, want %s", body, want)
	}
	if _, n, err := as.report("a", []byte(`[]`)); n != 0 || err != nil {
		t.Errorf("got %d messages and error %v of an empty page, want none", n, err)
	}
	if _, _, err := as.report("a", []byte(`<html>`)); err == nil {
		t.Error("got no error of what is no page")
	}
}
