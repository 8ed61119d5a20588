package httpx

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

// Status is a check's, and the whole report's.
type Status string

// The statuses, from good to bad. Only Fail makes the answer a 503.
const (
	Pass Status = "pass"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Check is what a check found. The JSON form is what client programs of the 3rdparty dialect read.
type Check struct {
	Description   string `json:"description"`
	ObservedUnit  string `json:"observedUnit"`
	ObservedValue int    `json:"observedValue"`
	Status        Status `json:"status"`
}

// Health answers /health, without authentication: its checks must be cheap. Requests that come while they run get what
// these find, so that a crowd costs no more than one after the other.
type Health struct {
	version   string
	releaseID int

	mu    sync.Mutex
	names []string
	ready map[string]func(context.Context) Check
	run   *checked // the one under way, nil if there is none
}

// checked is what one run of the checks found, once done is closed.
type checked struct {
	done  chan struct{}
	found map[string]Check
}

// healthTimeout is a request's, for all its checks together. Used up by a part that is slow: health then says
// so.
const healthTimeout = 2 * time.Second

// NewHealth returns a Health without checks, which is ready.
func NewHealth(version string, releaseID int) *Health {
	return &Health{version: version, releaseID: releaseID, ready: map[string]func(context.Context) Check{}}
}

// Register adds a readiness check, or replaces it. The name has two parts, as in "nats:connection". The check runs
// beside the others and returns when ctx is done, after 2 s; one that did not return before counts as failed.
func (h *Health) Register(name string, check func(ctx context.Context) Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ready[name] == nil {
		h.names = append(h.names, name)
	}
	h.ready[name] = check
}

type report struct {
	Status    Status           `json:"status"`
	Version   string           `json:"version"`
	ReleaseID int              `json:"releaseId"`
	Checks    map[string]Check `json:"checks"`
}

// Mount adds GET and HEAD of /health, /health/ready and /health/startup, which are the same, and /health/live.
func (h *Health) Mount(r gin.IRoutes) {
	methods := []string{http.MethodGet, http.MethodHead}
	for _, path := range []string{"/health", "/health/ready", "/health/startup"} {
		r.Match(methods, path, func(c *gin.Context) { h.answer(c, h.runReady(c.Request.Context())) })
	}
	r.Match(methods, "/health/live", func(c *gin.Context) { h.answer(c, live()) })
}

// Ready says whether no check fails.
func (h *Health) Ready(ctx context.Context) bool { return worst(h.runReady(ctx)) != Fail }

func worst(checks map[string]Check) Status {
	status := Pass
	for _, check := range checks {
		if check.Status == Fail || check.Status == Warn && status == Pass {
			status = check.Status
		}
	}
	return status
}

func (h *Health) answer(c *gin.Context, checks map[string]Check) {
	r := report{Status: worst(checks), Version: h.version, ReleaseID: h.releaseID, Checks: checks}
	code := http.StatusOK
	if r.Status == Fail {
		code = http.StatusServiceUnavailable
	}
	c.Header("Cache-Control", "no-store")
	c.JSON(code, r)
}

// runReady runs the checks, or waits for those that run.
func (h *Health) runReady(ctx context.Context) map[string]Check {
	h.mu.Lock()
	// Used up by a stranger: who asks at the same time shares the run, so it hurts nobody.
	own := h.run == nil
	if own {
		h.run = &checked{done: make(chan struct{})}
	}
	run := h.run
	h.mu.Unlock()
	if own {
		// Others wait for it, so it does not end with who came first.
		run.found = h.runAll(context.WithoutCancel(ctx))
		h.mu.Lock()
		h.run = nil
		h.mu.Unlock()
		close(run.done)
	}
	<-run.done
	return run.found
}

func (h *Health) runAll(ctx context.Context) map[string]Check {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	h.mu.Lock()
	names, checks := append([]string(nil), h.names...), make([]func(context.Context) Check, len(h.names))
	for i, name := range names {
		checks[i] = h.ready[name]
	}
	h.mu.Unlock()

	found := make([]Check, len(names))
	var all sync.WaitGroup
	for i, check := range checks {
		all.Go(func() { found[i] = runCheck(ctx, check) })
	}
	all.Wait()
	results := make(map[string]Check, len(names))
	for i, name := range names {
		results[name] = found[i]
	}
	return results
}

func runCheck(ctx context.Context, check func(context.Context) Check) (found Check) {
	defer func() {
		if v := recover(); v != nil {
			found = Check{Description: fmt.Sprintf("The check panicked: %T", v), Status: Fail}
		}
	}()
	found = check(ctx)
	if ctx.Err() != nil {
		found.Status = Fail
	}
	return found
}

const heapMetric = "/memory/classes/heap/objects:bytes"

func live() map[string]Check {
	sample := []metrics.Sample{{Name: heapMetric}}
	metrics.Read(sample) // unlike runtime.ReadMemStats it does not stop the world
	return map[string]Check{
		"system:goroutines": {Description: "Number of goroutines", ObservedUnit: "goroutines", ObservedValue: runtime.NumGoroutine(), Status: Pass},
		"system:memory":     {Description: "Memory in use on the heap", ObservedUnit: "MiB", ObservedValue: int(sample[0].Value.Uint64() >> 20), Status: Pass},
	}
}
