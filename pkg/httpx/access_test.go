package httpx_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

func init() { gin.SetMode(gin.ReleaseMode) }

// engine has the two middlewares in front of a few routes, a clock that moves 20 ms a look, and ids "id".
func engine(log *zap.Logger, answer func(*gin.Context)) *gin.Engine {
	now := time.Unix(0, 0)
	e := gin.New()
	e.Use(httpx.AccessLog(httpx.AccessOptions{
		Log:   log,
		Now:   func() time.Time { now = now.Add(20 * time.Millisecond); return now },
		NewID: func() string { return "id" },
	}), httpx.Recover(log, answer))
	e.POST("/api/:token/queue", func(c *gin.Context) { c.String(http.StatusCreated, "12345") })
	e.GET("/broken", func(c *gin.Context) {
		_ = c.Error(errors.New("read projection: short read"))
		c.Status(http.StatusInternalServerError)
	})
	e.GET("/health/ready", func(c *gin.Context) { c.Status(http.StatusServiceUnavailable) })
	e.GET("/panic/:what", func(c *gin.Context) {
		switch c.Param("what") {
		case "value":
			panic("secret-text-in-a-panic")
		case "error":
			panic(errors.New("secret-text-in-an-error"))
		case "runtime":
			_ = []int{}[len(c.Param("what"))]
		case "late":
			c.String(http.StatusOK, "half")
			panic("secret-text-late")
		case "abort":
			panic(http.ErrAbortHandler)
		}
	})
	return e
}

func TestAccessLog(t *testing.T) {
	token := strings.Repeat("0a1b2c3d", 8)
	line := func(method, route string, status, bytes int64) map[string]any {
		return map[string]any{"id": "id", "method": method, "route": route, "status": status, "duration": 20 * time.Millisecond, "bytes": bytes}
	}
	broken := line("GET", "/broken", 500, 0)
	broken["error"] = "read projection: short read"
	tests := []struct {
		name, method, path string
		level              zapcore.Level
		want               map[string]any
	}{
		{"template instead of path", "POST", "/api/" + token + "/queue?text=hello&token=" + token, zap.DebugLevel, line("POST", "/api/:token/queue", 201, 5)},
		{"no route", "GET", "/api/" + token + "/quue", zap.DebugLevel, line("GET", "none", 404, 0)},
		{"failure", "GET", "/broken", zap.WarnLevel, broken},
		{"not ready yet", "GET", "/health/ready", zap.DebugLevel, line("GET", "/health/ready", 503, 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			core, logs := observer.New(zap.DebugLevel)
			w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader("hello"))
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("X-Request-Id", token)
			engine(zap.New(core), nil).ServeHTTP(w, r)

			all := logs.All()
			if len(all) != 1 {
				t.Fatalf("got %d lines, want 1", len(all))
			}
			if got := all[0]; got.Level != tt.level || got.Message != "request" {
				t.Errorf("got %s %q, want %s \"request\"", got.Level, got.Message, tt.level)
			}
			if diff := cmp.Diff(tt.want, all[0].ContextMap()); diff != "" {
				t.Errorf("line (-want +got)\n%s", diff)
			}
			if got, want := w.Header().Get("X-Request-ID"), "id"; got != want {
				t.Errorf("X-Request-ID: got %q, want %q", got, want)
			}
		})
	}
}

func TestAccessLogDefaults(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	e := gin.New()
	e.Use(httpx.AccessLog(httpx.AccessOptions{Log: zap.New(core)}))
	ids := map[string]bool{}
	for range 2 {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		ids[w.Header().Get("X-Request-ID")] = true
	}
	if len(ids) != 2 || ids[""] {
		t.Errorf("request ids: got %v, want two different ones", ids)
	}
	if got := logs.Len(); got != 0 {
		t.Errorf("got %d lines at level info, want 0", got)
	}
}

func TestRecover(t *testing.T) {
	teapot := func(c *gin.Context) { c.String(http.StatusTeapot, "sorry") }
	tests := []struct {
		what   string
		answer func(*gin.Context)
		status int
		body   string
		panic  string // in the log
	}{
		{"value", nil, 500, "", "string"},
		{"value", teapot, 418, "sorry", "string"},
		{"error", nil, 500, "", "*errors.errorString"},
		{"runtime", nil, 500, "", "runtime error: index out of range [7] with length 0"},
	}
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			core, logs := observer.New(zap.DebugLevel)
			w := httptest.NewRecorder()
			engine(zap.New(core), tt.answer).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/panic/"+tt.what, nil))
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tt.status, tt.body)
			}
			lines := logs.FilterMessage("panic").All()
			if len(lines) != 1 {
				t.Fatalf("got %d lines, want 1", len(lines))
			}
			fields := lines[0].ContextMap()
			if got := fields["panic"]; got != tt.panic {
				t.Errorf("panic: got %q, want %q", got, tt.panic)
			}
			if got := fields["stack"].(string); !strings.Contains(got, "access_test.go") {
				t.Errorf("the stack does not show the place:\n%s", got)
			}
			b, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "secret-text-") {
				t.Errorf("the log shows the panic's value: %s", b)
			}
		})
	}
}

// Half an answer is cut off, so that the client does not take it for whole.
func TestRecoverCutsHalfAnswers(t *testing.T) {
	for _, what := range []string{"late", "abort"} {
		func() {
			defer func() {
				v := recover()
				if err, _ := v.(error); !errors.Is(err, http.ErrAbortHandler) {
					t.Errorf("%s: got %v, want http.ErrAbortHandler", what, v)
				}
			}()
			engine(zap.NewNop(), nil).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/panic/"+what, nil))
		}()
	}
}

// Requests that fail by the thousand are not each worth a line.
func TestAccessLogSamplesWarnings(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	e := engine(zap.New(core, zap.WithClock(still{})), nil)
	for range 1500 {
		e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/broken", nil))
		e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "GET", "/none", nil))
	}
	if got, want := logs.FilterLevelExact(zap.WarnLevel).Len(), 101; got != want {
		t.Errorf("got %d warnings, want %d", got, want)
	}
	if got, want := logs.FilterLevelExact(zap.DebugLevel).Len(), 1500; got != want {
		t.Errorf("got %d other lines, want %d", got, want)
	}
}

// still is a clock that stands.
type still struct{}

func (still) Now() time.Time                       { return time.Unix(0, 0) }
func (still) NewTicker(time.Duration) *time.Ticker { panic("nothing is ticked") }
