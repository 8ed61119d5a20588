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

// What senders' posts may be under way at a time, and what phones' reports may be: about what is stored in a tenth of a
// second. More of them would be stored no sooner, and each would wait longer. An account has no more of it than it
// leaves to others, so none can use it up: one alone has half, of two each has a third.
const (
	// Used up by several accounts together, or by one its share: who has most is refused first.
	maxUnderWay = 512      // requests
	maxPosts    = 32 << 20 // bytes of posts, and of what is made of them
	maxReports  = 16 << 20 // bytes of reports, and of what is read in them
	// maxStrangers is for bodies whose senders are not known before they are read: by where they come from. Strangers
	// can use it up, and then keep out others who say who they are in the body; but only with requests that come whole
	// and at once, from more networks than it has room for.
	maxStrangers = 4 << 20 // bytes
	// maxAnswers is for pages, lists and messages on their way out, as they came and as they are sent. Used up by accounts
	// that ask for much and read nothing: each by itself has half of it at most, then only its own are refused.
	maxAnswers = 128 << 20 // bytes
)

// maxMetrics is how many may read the metrics at a time: nobody has to say who they are, and each takes
// memory. Used up by a stranger, whom only a proxy keeps out: the operator's monitoring gets 503.
const maxMetrics = 4

// handler is the whole HTTP side.
func (i *Ingress) handler() http.Handler {
	r := i.routes()
	return httpx.Normalize(r, r.Routes())
}

// routes are those of every dialect, each of which mounts its own.
func (i *Ingress) routes() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.RedirectTrailingSlash = false
	r.HandleMethodNotAllowed = true
	rescue := httpx.Recover(i.deps.Log, answer(http.StatusInternalServerError, "internal", "Internal error"))

	// What machines ask every few seconds is neither logged nor counted.
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

// storedAs says how what is stored is encrypted.
const storedAs = "none: messages are stored as they are"

// answer refuses what no dialect knows.
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
