package httpx_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

func ask(t *testing.T, h *httpx.Health, method, path string) (int, string) {
	t.Helper()
	e := gin.New()
	h.Mount(e)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return w.Code, w.Body.String()
}

func says(s httpx.Status, value int) func(context.Context) httpx.Check {
	return func(context.Context) httpx.Check {
		return httpx.Check{Description: "Connection", ObservedUnit: "count", ObservedValue: value, Status: s}
	}
}

func TestHealthBody(t *testing.T) {
	h := httpx.NewHealth("1.2.3", 1002003)
	h.Register("nats:connection", says(httpx.Pass, 1))
	want := `{"status":"pass","version":"1.2.3","releaseId":1002003,"checks":{"nats:connection":{"description":"Connection","observedUnit":"count","observedValue":1,"status":"pass"}}}`
	for _, path := range []string{"/health", "/health/ready", "/health/startup"} {
		code, got := ask(t, h, "GET", path)
		if code != 200 || got != want {
			t.Errorf("%s\n got %d %s\nwant 200 %s", path, code, got, want)
		}
	}
	if code, _ := ask(t, h, "HEAD", "/health"); code != 200 {
		t.Errorf("HEAD: got %d, want 200", code)
	}
}

func TestHealthStatus(t *testing.T) {
	const pass, warn, fail = httpx.Pass, httpx.Warn, httpx.Fail
	tests := []struct {
		checks []httpx.Status
		status httpx.Status
		code   int
	}{
		{nil, pass, 200},
		{[]httpx.Status{pass, pass}, pass, 200},
		{[]httpx.Status{pass, warn}, warn, 200},
		{[]httpx.Status{warn, fail, pass}, fail, 503},
		{[]httpx.Status{fail, warn}, fail, 503},
	}
	for _, tt := range tests {
		h := httpx.NewHealth("v", 1)
		for i, s := range tt.checks {
			h.Register(string(rune('a'+i))+":x", says(s, i))
		}
		code, body := ask(t, h, "GET", "/health")
		var got struct {
			Status httpx.Status
			Checks map[string]any
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		if code != tt.code || got.Status != tt.status || len(got.Checks) != len(tt.checks) {
			t.Errorf("%v: got %d %s, %d checks, want %d %s", tt.checks, code, got.Status, len(got.Checks), tt.code, tt.status)
		}
	}
}

func TestHealthSlowAndBrokenChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := httpx.NewHealth("v", 1)
		h.Register("slow:x", func(ctx context.Context) httpx.Check {
			<-ctx.Done()
			return httpx.Check{Description: "Slow", Status: httpx.Pass}
		})
		h.Register("broken:x", func(context.Context) httpx.Check { panic("x") })
		h.Register("good:x", says(httpx.Fail, 0))
		h.Register("good:x", says(httpx.Pass, 0))
		code, body := ask(t, h, "GET", "/health/ready")
		want := `{"status":"fail","version":"v","releaseId":1,"checks":{` +
			`"broken:x":{"description":"The check panicked: string","observedUnit":"","observedValue":0,"status":"fail"},` +
			`"good:x":{"description":"Connection","observedUnit":"count","observedValue":0,"status":"pass"},` +
			`"slow:x":{"description":"Slow","observedUnit":"","observedValue":0,"status":"fail"}}}`
		if code != 503 || body != want {
			t.Errorf("\n got %d %s\nwant 503 %s", code, body, want)
		}
	})
}

func TestHealthLive(t *testing.T) {
	h := httpx.NewHealth("v", 1)
	h.Register("nats:connection", says(httpx.Fail, 0))
	code, body := ask(t, h, "GET", "/health/live")
	var got struct {
		Status string
		Checks map[string]httpx.Check
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if code != 200 || got.Status != "pass" {
		t.Errorf("got %d %s, want 200 pass: a lost connection is no reason to kill the process", code, got.Status)
	}
	if n := got.Checks["system:goroutines"].ObservedValue; n < 1 {
		t.Errorf("goroutines: got %d, want some", n)
	}
	for name, check := range got.Checks {
		check.ObservedValue = 0
		got.Checks[name] = check
	}
	want := map[string]httpx.Check{
		"system:goroutines": {Description: "Number of goroutines", ObservedUnit: "goroutines", Status: httpx.Pass},
		"system:memory":     {Description: "Memory in use on the heap", ObservedUnit: "MiB", Status: httpx.Pass},
	}
	if diff := cmp.Diff(want, got.Checks); diff != "" {
		t.Errorf("checks (-want +got)\n%s", diff)
	}
}

// A crowd that asks at once is told what one run of the checks finds, and whoever comes afterwards what the next does.
func TestHealthCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		h := httpx.NewHealth("1.0.0", 1)
		h.Register("slow:check", func(context.Context) httpx.Check {
			runs++
			time.Sleep(time.Second)
			return httpx.Check{ObservedValue: runs, Status: httpx.Pass}
		})
		e := gin.New()
		h.Mount(e)
		ask := func() string {
			w := httptest.NewRecorder()
			e.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/health", nil))
			return w.Body.String()
		}
		var crowd sync.WaitGroup
		for range 100 {
			crowd.Go(func() {
				if got := ask(); !strings.Contains(got, `"observedValue":1`) {
					t.Errorf("got %s", got)
				}
			})
		}
		crowd.Wait()
		if got := ask(); !strings.Contains(got, `"observedValue":2`) || runs != 2 {
			t.Errorf("afterwards: got %s after %d runs", got, runs)
		}
	})
}
