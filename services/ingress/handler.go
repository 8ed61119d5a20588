package ingress

import (
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/ingress/api/docs"
	"github.com/trunkline-sms/trunkline/services/ingress/api/nodes"
	"github.com/trunkline-sms/trunkline/services/ingress/api/queue"
	"github.com/trunkline-sms/trunkline/services/ingress/api/releases"
	"github.com/trunkline-sms/trunkline/services/ingress/api/smsgate"
)

// How many posts of senders, and reports of phones, may be under way at a time: about as many as are stored in a tenth of a
// second. More of them would be stored no sooner, and each would wait longer. An account has no more of it than it
// leaves to others, so no account can use it up: one alone has half, and two have a third each.
const (
	// Limit: 512 posts of senders are under way at once, and as many reports of phones; of one account as many as it
	// leaves to others, so one alone has 256. Beyond it: 503 `overloaded` with Retry-After 1, nothing stored.
	// Used up by: several accounts together. Hurts: first the accounts that have most under way. Test: TestOverload.
	maxUnderWay = 512 // requests
	// Limit: posts have 32 MiB of memory: their bodies as far as they have come, and what is made of them; one account
	// has as much of it as it leaves to others. Beyond it: bodies that come slowly make room, else 503 `overloaded`.
	// Used up by: several accounts together, or one that sends slowly. Hurts: first the accounts that have most of it.
	// Test: TestMemory_GreedySenders.
	maxPosts = 32 << 20 // bytes
	// Limit: reports have 16 MiB of memory in the same way. Beyond it: the same.
	// Used up by: phones of several accounts together. Hurts: first the accounts that have most of it.
	// Test: TestLimiter_Bytes.
	maxReports = 16 << 20 // bytes
	// Limit: bodies that have to be read before it is known whose they are have 4 MiB in the same way, by network.
	// Beyond it: the same.
	// Used up by: strangers, with requests that come whole and at once, from more networks than it has room for.
	// Hurts: others who name themselves in the body: callers of the SMS Nodes dialect. Test: TestIngress_HalfSentBodies.
	maxStrangers = 4 << 20 // bytes
	// Limit: answers with pages, lists and messages have 128 MiB, as they came and as they are sent; one account has as
	// much of it as it leaves to others, so half at most. Beyond it: 503 `overloaded` with Retry-After 1; what a phone
	// does not get is not leased.
	// Used up by: accounts that ask for much and read nothing. Hurts: first the accounts that have most of it.
	// Test: TestIngress_UnreadPages.
	maxAnswers = 128 << 20 // bytes
)

// Whoever reads the metrics need not say who he is, and each reader takes memory.
//
// Limit: 4 may read `/metrics` at once. Beyond it: 503.
// Used up by: any stranger who reaches the server; only a proxy keeps them out. Hurts: the operator's monitoring.
// Test: TestIngress_MetricsCrowd.
const maxMetrics = 4

// handler is the whole HTTP side.
func (i *Ingress) handler() http.Handler {
	r := i.routes()
	return httpx.Normalize(r, r.Routes())
}

// routes are the routes of all dialects: each mounts its own.
func (i *Ingress) routes() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.RedirectTrailingSlash = false
	r.HandleMethodNotAllowed = true
	rescue := httpx.Recover(i.deps.Log, answer(http.StatusInternalServerError, "internal", "Internal error"))

	// Health and metrics are asked for every few seconds: such requests are neither logged nor counted.
	watched := r.Group("", rescue)
	health := i.health()
	health.Mount(watched)
	if i.deps.Gatherer != nil {
		watched.GET("/metrics", gin.WrapH(promhttp.HandlerFor(i.deps.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: maxMetrics})))
	}

	r.Use(httpx.AccessLog(httpx.AccessOptions{Log: i.deps.Log, Now: i.deps.Now}), countAnswers(i.deps.Metrics), rescue)
	r.NoRoute(smsgate.Unrouted(answer(http.StatusNotFound, "not_found", "Not found")))
	r.NoMethod(answer(http.StatusMethodNotAllowed, "method_not_allowed", "Method not allowed"))
	links, senders, answers := i.cfg.links(), httpx.NewLimiter(maxUnderWay, maxPosts), httpx.NewLimiter(0, maxAnswers)
	queue.Mount(r, i.backend, queue.Limiters{Senders: senders, Phones: httpx.NewLimiter(maxUnderWay, maxReports), Answers: answers})
	smsgate.Mount(r, i.backend, smsgate.Options{Senders: senders, Answers: answers, Proxies: links.Proxies, Health: health.Mount, Now: i.deps.Now})
	nodes.Mount(r, i.backend, nodes.Options{
		Logins: httpx.NewLimiter(maxUnderWay, maxStrangers), Senders: senders,
		Proxies: links.Proxies, Encryption: storedAs,
		Ready: health.Ready, Now: i.deps.Now,
	})
	releases.Mount(r, i.releases, releases.Options{
		Links: links, Downloads: i.cfg.MaxDownloads, Rate: int64(i.cfg.DownloadRate),
	})
	docs.Mount(r)
	return r
}

// storedAs says how stored messages are encrypted.
const storedAs = "none: messages are stored as they are"

// answer answers a request that no dialect knows.
func answer(status int, code, text string) gin.HandlerFunc {
	body := struct {
		Error string `json:"error"`
		Code  string `json:"code"`
	}{text, code}
	return func(c *gin.Context) { c.JSON(status, body) }
}

// countAnswers counts by route and status; paths without a route are one.
func countAnswers(to prometheus.Registerer) gin.HandlerFunc {
	answers := promauto.With(to).NewCounterVec(prometheus.CounterOpts{
		Namespace: "trunkline", Subsystem: "ingress", Name: "http_answers_total", Help: "HTTP requests answered, by route and status.",
	}, []string{"route", "status"})
	return func(c *gin.Context) {
		c.Next()
		answers.WithLabelValues(c.FullPath(), strconv.Itoa(c.Writer.Status())).Inc()
	}
}
