package node

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// releaseID numbers the contract of this HTTP side, as that of ingress.
const releaseID = 1

// health is /health of a process without ingress.
type health struct{ *httpx.Health }

func newHealth(version string) health { return health{httpx.NewHealth(version, releaseID)} }

// clock adds the check of the clock.
func (h health) clock(c *clock.Clock) { h.Register("clock:skew", httpx.CheckClock(c)) }

// part adds the checks of a part.
func (h health) part(name string, b *bus.Bus, ready func(context.Context) error) {
	h.Register("nats:connection", connected(b))
	h.Register(name+":folded", func(ctx context.Context) httpx.Check {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		check := httpx.Check{Description: "What was stored at the start is folded", ObservedUnit: "boolean", Status: httpx.Fail}
		if err := ready(ctx); err == nil {
			check.ObservedValue, check.Status = 1, httpx.Pass
		}
		return check
	})
}

func connected(b *bus.Bus) func(context.Context) httpx.Check {
	return func(context.Context) httpx.Check {
		check := httpx.Check{Description: "Connected to the engine", ObservedUnit: "boolean", Status: httpx.Fail}
		if b.Conn.Status() == nats.CONNECTED {
			check.ObservedValue, check.Status = 1, httpx.Pass
		}
		return check
	}
}

// handler answers health and metrics.
func (p *process) handler(h health) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	h.Mount(r)
	r.GET("/metrics", gin.WrapH(promhttp.HandlerFor(p.metrics, promhttp.HandlerOpts{})))
	return r
}

// notYet is handler for a process whose parts wait: who comes to ingress comes
// again.
func (p *process) notYet(h health) http.Handler {
	r := p.handler(h).(*gin.Engine)
	r.NoRoute(func(c *gin.Context) {
		c.Header("Retry-After", "1")
		c.JSON(http.StatusServiceUnavailable, gin.H{"error": "The server is starting, try again", "code": "starting"})
	})
	return r
}

// watched is the HTTP side of a process without ingress.
type watched struct {
	*process
	health health
}

// Name is "health".
func (*watched) Name() string { return "health" }

// Run answers until ctx is done.
func (w *watched) Run(ctx context.Context) error {
	return httpx.Serve(ctx, httpx.ServerOptions{
		Listener: w.listener, Handler: w.handler(w.health), Log: w.log, Grace: w.cfg.Ingress.StopGrace,
	})
}

// waiting answers health until the parts run, and then leaves the listener to
// them.
type waiting struct {
	why    atomic.Pointer[error]
	lent   *lent
	stop   context.CancelFunc
	served sync.WaitGroup
}

func serveWaiting(p *process) *waiting {
	w := &waiting{}
	w.report(errNoEngine)
	h := newHealth(p.version)
	h.Register("streams:found", func(context.Context) httpx.Check {
		return httpx.Check{Description: (*w.why.Load()).Error(), ObservedUnit: "boolean", Status: httpx.Fail}
	})
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	w.lent = &lent{Listener: p.listener, closed: make(chan struct{})}
	w.served.Go(func() {
		err := httpx.Serve(ctx, httpx.ServerOptions{Listener: w.lent, Handler: p.notYet(h), Log: p.log})
		if err != nil {
			p.log.Warn("health is not answered while waiting", zap.Error(err))
		}
	})
	return w
}

func (w *waiting) report(why error) { w.why.Store(&why) }

func (w *waiting) end() {
	w.stop()
	w.served.Wait()
	w.lent.giveBack()
}

// lent is a listener that its server cannot close: it only stops to accept.
type lent struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

type deadliner interface{ SetDeadline(t time.Time) error }

func (l *lent) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	select {
	case <-l.closed:
		if conn != nil {
			_ = conn.Close()
		}
		return nil, net.ErrClosed
	default:
		return conn, err
	}
}

func (l *lent) giveBack() { _ = l.Listener.(deadliner).SetDeadline(time.Time{}) }

// Close ends the Accept under way.
func (l *lent) Close() error {
	l.once.Do(func() {
		close(l.closed)
		_ = l.Listener.(deadliner).SetDeadline(time.Now())
	})
	return nil
}
