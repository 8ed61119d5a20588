// Package releases tells apps which version of them is current, and gives its
// file: GET app-version, app-versions, and the downloads. It is public.
package releases

import (
	"context"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Releases is what the routes ask for.
type Releases interface {
	// All lists the releases that stand, the highest code first.
	All(ctx context.Context) ([]request.AppVersion, error)
	// Open gives the file of one; its caller closes it.
	Open(ctx context.Context, v request.AppVersion) (*os.File, error)
	Downloaded(code streams.VersionCode)
}

// Options say how downloads are served.
type Options struct {
	Links     Links
	Downloads int   // at a time
	Rate      int64 // bytes a second of all downloads together; 0: no limit
}

// Mount adds the routes.
func Mount(r gin.IRouter, releases Releases, o Options) {
	a := api{releases: releases, links: o.Links, slots: make(chan struct{}, o.Downloads), pace: newPace(o.Rate), parts: newParts()}
	methods := []string{http.MethodGet, http.MethodHead}
	r.Match(methods, "/api/app-version", a.answered(a.active))
	r.Match(methods, "/api/app-versions", a.answered(a.list))
	r.Match(methods, activePath, a.answered(a.downloadActive))
	r.Match(methods, codePath+":version_code", a.answered(a.downloadCode))
}

type api struct {
	releases Releases
	links    Links
	slots    chan struct{}
	pace     *pace
	parts    *parts
}

// answered calls h with the releases, and answers with the fault that h returns.
func (a api) answered(h func(*gin.Context, []request.AppVersion) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		all, err := a.releases.All(c.Request.Context())
		if err == nil {
			err = h(c, all)
		}
		if err != nil {
			refuse(c, err)
		}
	}
}

func (a api) active(c *gin.Context, all []request.AppVersion) error {
	v, err := active(all)
	if err == nil {
		answer(c, http.StatusOK, httpx.JSON(activeAnswer(v, a.links.base(c.Request))))
	}
	return err
}

func (a api) list(c *gin.Context, all []request.AppVersion) error {
	answer(c, http.StatusOK, httpx.JSON(listAnswer(all, a.links.base(c.Request))))
	return nil
}

func (a api) downloadActive(c *gin.Context, all []request.AppVersion) error {
	v, err := active(all)
	if err != nil {
		return err
	}
	return a.send(c, v)
}

func (a api) downloadCode(c *gin.Context, all []request.AppVersion) error {
	v, err := find(all, c.Param("version_code"))
	if err != nil {
		return err
	}
	return a.send(c, v)
}

// crowdRetry is when to try again while too many downloads are under way.
const crowdRetry = 10 * time.Second

// send answers with a release's file, or the part of it that is asked for.
func (a api) send(c *gin.Context, v request.AppVersion) error {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	default:
		f := *errCrowd
		f.RetryAfter = crowdRetry
		return &f
	}
	file, err := a.releases.Open(c.Request.Context(), v)
	if err != nil {
		return err
	}
	defer file.Close()
	h := c.Writer.Header()
	h.Set("Content-Type", "application/vnd.android.package-archive")
	h.Set("Content-Disposition", `attachment; filename="`+fileName(v.Version)+`"`)
	h.Set("ETag", `"`+v.SHA256+`"`)
	h.Set("Cache-Control", "no-cache") // a download that a cache answers would not be counted
	r := c.Request
	if strings.Contains(r.Header.Get("Range"), ",") {
		// Several parts in one answer: a server need not support that.
		r = r.Clone(r.Context())
		r.Header.Del("Range")
	}
	w := &writer{ResponseWriter: c.Writer, ctx: r.Context(), pace: a.pace, control: http.NewResponseController(c.Writer)}
	http.ServeContent(w, r, "", v.Published, file)
	if r.Method == http.MethodGet && a.parts.whole(part{a.links.Proxies.From(r), v.Code}, w.sent(v.Size), v.Size) {
		a.releases.Downloaded(v.Code)
	}
	return nil
}

func refuse(c *gin.Context, err error) {
	f := fault.As(err)
	status, body := refusal(f)
	if status >= http.StatusInternalServerError {
		_ = c.Error(err)
	}
	httpx.RateHeaders(c.Writer.Header(), 0, 0, 0, f.RetryAfter)
	answer(c, status, httpx.JSON(body))
}

func answer(c *gin.Context, status int, body []byte) {
	c.Header("Cache-Control", "no-store")
	c.Data(status, "application/json; charset=utf-8", body)
}
