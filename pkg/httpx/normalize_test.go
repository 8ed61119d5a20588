package httpx_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// routed is a router whose answer is the route that was taken and the path as it came there.
func routed() http.Handler {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.RedirectTrailingSlash, r.HandleMethodNotAllowed = false, true
	say := func(c *gin.Context) { c.String(http.StatusOK, c.FullPath()+" "+c.Request.URL.Path) }
	for route, method := range map[string]string{
		"/": "GET", "/health": "GET", "/api/health": "GET", "/api/queue": "POST", "/api/:token/queue": "POST",
		"/3rdparty/v1/messages": "POST", "/3rdparty/v1/messages/:id": "GET", "/3rdparty/v1/messages/Export": "POST",
		"/folder/": "GET", "/folder/:id/": "GET", "/assets/*file": "GET",
	} {
		r.Handle(method, route, say)
	}
	r.NoRoute(func(c *gin.Context) { c.String(http.StatusNotFound, "none "+c.Request.URL.Path) })
	return httpx.Normalize(r, r.Routes())
}

func TestNormalize(t *testing.T) {
	tests := []struct{ method, path, want string }{
		{"GET", "/health", "/health /health"},
		{"GET", "/Health/", "/health /health"},
		{"GET", "//API//health//", "/api/health /api/health"},
		{"GET", "/", "/ /"},
		{"GET", "//", "/ /"},
		{"POST", "/api/QUEUE", "/api/queue /api/queue"},
		{"POST", "/Api//ToKeN/Queue/", "/api/:token/queue /api/ToKeN/queue"},
		// A token may look like what a route says.
		{"POST", "/api/Health/queue", "/api/:token/queue /api/Health/queue"},
		{"POST", "/api/Queue/queue", "/api/:token/queue /api/Queue/queue"},
		{"GET", "/3rdparty/v1/MESSAGES/Ab%2fcD", "none /3rdparty/v1/MESSAGES/Ab/cD"},
		{"GET", "/3rdparty/v1/messages/a%20B%C3%A9%ff", "/3rdparty/v1/messages/:id /3rdparty/v1/messages/a Bé\xff"},
		// What another method's route says is none of this one's.
		{"GET", "/3rdparty/v1/messages/EXPORT", "/3rdparty/v1/messages/:id /3rdparty/v1/messages/EXPORT"},
		{"POST", "/3rdparty/v1/messages/export/", "/3rdparty/v1/messages/Export /3rdparty/v1/messages/Export"},
		{"POST", "/3RDPARTY/V1/Messages", "/3rdparty/v1/messages /3rdparty/v1/messages"},
		{"GET", "/Folder", "/folder/ /folder/"},
		{"GET", "/folder//A", "/folder/:id/ /folder/A/"},
		{"GET", "/Assets/Css//A.css/", "/assets/*file /assets/Css//A.css/"},
		{"GET", "/assets", "/assets/*file /assets/"},
		{"GET", "/none//SUCH/", "none /none/SUCH"},
		{"GET", "/api", "none /api"},
		{"GET", "/api/../Health", "none /api/../Health"},
		{"GET", "/K\u212Aealth", "none /K\u212Aealth"},
		{"DELETE", "/API/health/", "405 method not allowed"},
		{"BREW", "/API/queue", "405 method not allowed"},
	}
	h := routed()
	for _, test := range tests {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), test.method, test.path, nil)
			before := *r.URL
			h.ServeHTTP(w, r)
			if got := w.Body.String(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if *r.URL != before {
				t.Errorf("the caller's request was changed to %v", r.URL)
			}
			if location := w.Header().Get("Location"); location != "" {
				t.Errorf("redirected to %s", location)
			}
		})
	}
}

// A path that is no path is nobody's.
func TestNormalize_NoPath(t *testing.T) {
	var got string
	h := httpx.Normalize(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.URL.Path }), nil)
	for _, path := range []string{"*", ""} {
		h.ServeHTTP(nil, &http.Request{Method: "OPTIONS", URL: &url.URL{Path: path}})
		if got != path {
			t.Errorf("got %q, want %q", got, path)
		}
	}
}

// FuzzNormalize holds that a path keeps its segments but for the case of what a route says, has no empty ones but
// behind a route that takes everything, and is not changed a second time.
func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{
		"/", "/api/TOKEN/queue", "//api//queue/", "/API/Health/QUEUE", "/3rdparty/v1/messages/Export", "/assets//a/", "/folder", "/K\u212Aealth", "/\xff/", "a//b", "",
	} {
		f.Add("GET", seed)
		f.Add("POST", seed)
	}
	gin.SetMode(gin.ReleaseMode)
	said := []string{"health", "api", "queue", "3rdparty", "v1", "messages", "Export", "assets", "folder"}
	var routes gin.RoutesInfo
	for route, method := range map[string]string{
		"/health": "GET", "/api/health": "GET", "/api/queue": "POST", "/api/:token/queue": "POST", "/3rdparty/v1/messages/:id": "GET",
		"/3rdparty/v1/messages/Export": "POST", "/:any/:other/queue": "GET", "/folder/": "GET", "/assets/*file": "GET",
	} {
		routes = append(routes, gin.RouteInfo{Method: method, Path: route})
	}
	var got *url.URL
	h := httpx.Normalize(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.URL }), routes)
	parts := func(path string) []string {
		return strings.FieldsFunc(path, func(char rune) bool { return char == '/' })
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		h.ServeHTTP(nil, &http.Request{Method: method, URL: &url.URL{Path: path, RawPath: "/%41", RawQuery: "a=B"}})
		once := *got
		if once.RawPath != "" || once.RawQuery != "a=B" {
			t.Fatalf("got %#v", once)
		}
		before, after := parts(path), parts(once.Path)
		if len(before) != len(after) {
			t.Fatalf("%q has other segments than %q", once.Path, path)
		}
		for i := range before {
			if before[i] != after[i] && (!strings.EqualFold(before[i], after[i]) || !slices.Contains(said, after[i])) {
				t.Fatalf("%q became %q", before[i], after[i])
			}
		}
		if strings.HasPrefix(path, "/") && !strings.HasPrefix(once.Path, "/assets/") &&
			(!strings.HasPrefix(once.Path, "/") || strings.Contains(once.Path, "//") || len(once.Path) > 1 && strings.HasSuffix(once.Path, "/") && once.Path != "/folder/") {
			t.Fatalf("%q became %q", path, once.Path)
		}
		h.ServeHTTP(nil, &http.Request{Method: method, URL: &url.URL{Path: once.Path}})
		if got.Path != once.Path {
			t.Fatalf("%q became %q and then %q", path, once.Path, got.Path)
		}
	})
}

func BenchmarkNormalize(b *testing.B) {
	routes := gin.RoutesInfo{{Method: "POST", Path: "/api/:token/queue"}, {Method: "POST", Path: "/api/queue"}}
	h := httpx.Normalize(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), routes)
	r := &http.Request{Method: "POST", URL: &url.URL{Path: "/api/0123456789012345678901234567890123456789012345678901234567890123/queue"}}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(nil, r)
	}
}
