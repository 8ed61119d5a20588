// Package docs is the reference of the wire APIs: an OpenAPI 3.1 document for each, and a viewer that needs no
// network.
package docs

import (
	"bytes"
	"compress/gzip"
	"embed"
	"html/template"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
	"github.com/swaggest/swgui/v5/static"
)

// Documents are the OpenAPI documents, one for each API, as name.yaml.
//
//go:embed queue.yaml releases.yaml thirdparty.yaml nodes.yaml
var Documents embed.FS

//go:embed page
var page embed.FS

// Document is one of Documents.
type Document struct{ Name, Title, About string }

// All lists the documents in the order in which the page shows them.
func All() []Document {
	return []Document{
		{"queue", "Queue", "Senders queue messages, phones fetch them and report: three calls with a token."},
		{"releases", "App releases", "Which version of the phones' app stands, and its file: public."},
		{"thirdparty", "3rdparty", "Messages to several recipients, schedules, webhooks, settings: what client libraries of SMSGate speak."},
		{"nodes", "SMS Nodes", "One call that sends through a phone, by the phone's own login."},
	}
}

const (
	prefix = "/docs"
	// policy lets the pages load nothing from elsewhere, and call nobody else. The viewer writes its own styles.
	policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

	kindHTML   = "text/html; charset=utf-8"
	kindCSS    = "text/css; charset=utf-8"
	kindScript = "text/javascript; charset=utf-8"
	kindYAML   = "application/yaml; charset=utf-8"
)

// Mount adds the pages under /docs, and the documents themselves.
func Mount(r gin.IRouter) {
	pages := template.Must(template.ParseFS(page, "page/*.html"))
	add := func(path, kind string, content []byte) {
		r.Match([]string{http.MethodGet, http.MethodHead}, prefix+path, answer(kind, content))
	}
	add("", kindHTML, render(pages, "list.html", All()))
	for _, d := range All() {
		add("/"+d.Name, kindHTML, render(pages, "view.html", d))
		add("/"+d.Name+".yaml", kindYAML, must(Documents.ReadFile(d.Name+".yaml")))
	}
	for name, kind := range map[string]string{"view.js": kindScript, "docs.css": kindCSS} {
		add("/assets/"+name, kind, must(page.ReadFile("page/"+name)))
	}
	for name, kind := range map[string]string{"swagger-ui-bundle.js": kindScript, "swagger-ui.css": kindCSS} {
		packed := must(static.FS.ReadFile(name + ".gz"))
		r.Match([]string{http.MethodGet, http.MethodHead}, prefix+"/assets/"+name, answerPacked(kind, packed))
	}
	add("/assets/favicon.png", "image/png", must(static.FS.ReadFile("favicon-32x32.png")))
}

// must is for what the program itself holds.
func must(content []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return content
}

func render(pages *template.Template, name string, data any) []byte {
	var out bytes.Buffer
	err := pages.ExecuteTemplate(&out, name, data)
	return must(out.Bytes(), err)
}

func answer(kind string, content []byte) gin.HandlerFunc {
	return func(c *gin.Context) {
		head(c)
		c.Data(http.StatusOK, kind, content)
	}
}

// answerPacked answers with what is stored packed: as it is to those who take that.
func answerPacked(kind string, packed []byte) gin.HandlerFunc {
	unpacked := sync.OnceValue(func() []byte { return must(unpack(packed)) })
	return func(c *gin.Context) {
		head(c)
		c.Header("Vary", "Accept-Encoding")
		if !acceptsGzip(c.Request) {
			c.Data(http.StatusOK, kind, unpacked())
			return
		}
		c.Header("Content-Encoding", "gzip")
		c.Data(http.StatusOK, kind, packed)
	}
}

func acceptsGzip(r *http.Request) bool {
	for _, one := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		coding, weight, _ := strings.Cut(strings.ReplaceAll(one, " ", ""), ";")
		refused := weight != "" && strings.Trim(weight, "q=0.") == ""
		if strings.EqualFold(coding, "gzip") && !refused {
			return true
		}
	}
	return false
}

func unpack(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func head(c *gin.Context) {
	c.Header("Content-Security-Policy", policy)
	c.Header("X-Content-Type-Options", "nosniff")
	c.Header("Referrer-Policy", "no-referrer")
	c.Header("Cache-Control", "no-cache")
}
