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

// Status is the outcome of a check, and of the whole report.
type Status string

// The statuses, from good to bad. Only Fail makes the answer a 503.
const (
	Pass Status = "pass"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Check is what a check found. Client programs of the 3rdparty dialect read its JSON form.
type Check struct {
	Description   string `json:"description"`
	ObservedUnit  string `json:"observedUnit"`
	ObservedValue int    `json:"observedValue"`
	Status        Status `json:"status"`
}

// Health answers /health. That needs no authentication, so the checks must be cheap. Requests that come while the checks
// run wait for this run and share its result: a crowd costs no more than one client that asks again and again.
type Health struct {
	version   string
	releaseID int

	mu    sync.Mutex
	names []string
	ready map[string]func(context.Context) Check
	run   *checked // under way; nil: none is
}

// checked is one run of the checks. What it found may be read once done is closed.
type checked struct {
	done  chan struct{}
	found map[string]Check
}

// Limit: 2 s for all checks of health together. Beyond it: those that are not done have failed.
// Used up by: a part that is slow. Hurts: nobody: health reports that part. Test: TestHealthSlowAndBrokenChecks.
const healthTimeout = 2 * time.Second

// NewHealth returns a Health without checks: until one is registered it is ready.
func NewHealth(version string, releaseID int) *Health {
	return &Health{version: version, releaseID: releaseID, ready: map[string]func(context.Context) Check{}}
}

// Register adds a readiness check, or replaces the one of that name. The name has two parts, as in "nats:connection".
// The check runs beside the others. Its ctx ends after 2 s: it must return then, and has failed.
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

// Ready runs the checks, and reports whether none of them fails.
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

// runReady runs the checks, or waits for the run that is under way.
func (h *Health) runReady(ctx context.Context) map[string]Check {
	h.mu.Lock()
	// Limit: 1 run of the checks behind /health at a time. Beyond it: requests that come meanwhile wait for that run,
	// and get its result.
	// Used up by: strangers. Hurts: nobody. Test: TestHealthCrowd.
	own := h.run == nil
	if own {
		h.run = &checked{done: make(chan struct{})}
	}
	run := h.run
	h.mu.Unlock()
	if own {
		// Other requests wait for this run: it goes on when the client that began it hangs up.
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
