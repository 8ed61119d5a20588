package httpx_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// read is a limiter's for one body of ten bytes at most.
func read(r *http.Request) (string, error) {
	body, place, err := httpx.NewLimiter(1, 1<<20).Enter(httptest.NewRecorder(), r, 10, "shop")
	if err == nil {
		place.Leave()
	}
	return string(body), err
}

func TestBody(t *testing.T) {
	tests := []struct {
		name   string
		body   io.Reader
		length int64
		want   string
		kind   fault.Kind
	}{
		{"stated", strings.NewReader("0123456789"), 10, "0123456789", ""},
		{"chunked", strings.NewReader("0123456789"), -1, "0123456789", ""},
		{"none", http.NoBody, 0, "", ""},
		{"stated too large is not read", iotest.ErrReader(io.ErrClosedPipe), 11, "", fault.TooLarge},
		{"chunked too large", strings.NewReader("0123456789x"), -1, "", fault.TooLarge},
		{"stated breaks off", strings.NewReader("0123"), 10, "", fault.Invalid},
		{"chunked breaks off", iotest.ErrReader(io.ErrUnexpectedEOF), -1, "", fault.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/", tt.body)
			r.ContentLength = tt.length
			got, err := read(r)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.kind == "" && err != nil || tt.kind != "" && !fault.Is(err, tt.kind) {
				t.Errorf("got error %v, want kind %q", err, tt.kind)
			}
			if tt.kind == fault.Invalid && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the cause is not in the chain of %v", err)
			}
		})
	}
}

func TestRateHeaders(t *testing.T) {
	tests := []struct {
		name              string
		limit, remaining  int
		reset, retryAfter time.Duration
		want              http.Header
	}{
		{"allowed", 60, 59, 1001 * time.Millisecond, 0, http.Header{"Ratelimit-Limit": {"60"}, "Ratelimit-Remaining": {"59"}, "Ratelimit-Reset": {"2"}}},
		{"refused", 60, -1, time.Minute, time.Millisecond, http.Header{"Ratelimit-Limit": {"60"}, "Ratelimit-Remaining": {"0"}, "Ratelimit-Reset": {"60"}, "Retry-After": {"1"}}},
		{"whole again", 60, 60, -time.Second, -time.Second, http.Header{"Ratelimit-Limit": {"60"}, "Ratelimit-Remaining": {"60"}, "Ratelimit-Reset": {"0"}}},
		{"no limit", 0, 0, 0, 0, http.Header{}},
		{"no limit, full", 0, 0, 0, 30 * time.Second, http.Header{"Retry-After": {"30"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := http.Header{}
			httpx.RateHeaders(got, tt.limit, tt.remaining, tt.reset, tt.retryAfter)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("headers (-want +got)\n%s", diff)
			}
		})
	}
}
