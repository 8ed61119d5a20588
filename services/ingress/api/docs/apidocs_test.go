package docs_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/trunkline-sms/trunkline/services/ingress/api/docs"
)

func handler() http.Handler {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	docs.Mount(r)
	return r
}

func ask(t *testing.T, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	handler().ServeHTTP(w, r)
	return w
}

var (
	loaded  = regexp.MustCompile(`(?:src|href|data-document)="([^"]*)"`)
	outside = regexp.MustCompile(`(?i)(?:url\(\s*['"]?|@import\s+['"]?)(?:https?:)?//`)
	inline  = regexp.MustCompile(`(?i)<script>|<style|\son[a-z]+=|style=`)
)

// The pages load what they need from this server only: with no network they are whole, and their policy holds them to
// it.
func TestPages(t *testing.T) {
	pages := []string{"/docs"}
	for _, d := range docs.All() {
		pages = append(pages, "/docs/"+d.Name)
	}
	for _, page := range pages {
		got := ask(t, page)
		if got.Code != http.StatusOK || got.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%s: got %d %s", page, got.Code, got.Header())
		}
		body := got.Body.String()
		if found := inline.FindString(body); found != "" {
			t.Errorf("%s has %q, which its policy forbids", page, found)
		}
		links := loaded.FindAllStringSubmatch(body, -1)
		if len(links) < 4 {
			t.Errorf("%s: got the links %v: the test looks in the wrong place", page, links)
		}
		for _, link := range links {
			if !strings.HasPrefix(link[1], "/docs") {
				t.Errorf("%s loads or names %s", page, link[1])
				continue
			}
			part := ask(t, link[1])
			if part.Code != http.StatusOK {
				t.Errorf("%s: %s: got %d", page, link[1], part.Code)
			}
			if kind := part.Header().Get("Content-Type"); strings.HasPrefix(kind, "text/css") && outside.Match(part.Body.Bytes()) {
				t.Errorf("%s: %s loads from elsewhere", page, link[1])
			}
			policy := part.Header().Get("Content-Security-Policy")
			if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "connect-src 'self'") ||
				strings.Contains(policy, "http") || strings.Contains(policy, "unsafe-eval") || strings.Contains(policy, "script-src 'self' 'unsafe") {
				t.Errorf("%s: got the policy %q", link[1], policy)
			}
		}
	}
}

func TestDocumentsAsFiles(t *testing.T) {
	for _, d := range docs.All() {
		want, err := docs.Documents.ReadFile(d.Name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		got := ask(t, "/docs/"+d.Name+".yaml")
		if got.Code != http.StatusOK || !bytes.Equal(got.Body.Bytes(), want) || got.Header().Get("Content-Type") != "application/yaml; charset=utf-8" {
			t.Errorf("%s: got %d, %d bytes of %d, %v", d.Name, got.Code, got.Body.Len(), len(want), got.Header())
		}
	}
	for _, path := range []string{"/docs/none", "/docs/none.yaml", "/docs/assets/none.js", "/docs/page/view.js"} {
		if got := ask(t, path); got.Code != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, got.Code)
		}
	}
}

// The viewer is stored packed, and comes to everybody.
func TestPacked(t *testing.T) {
	const path = "/docs/assets/swagger-ui-bundle.js"
	plain := ask(t, path).Body.Bytes()
	if !bytes.Contains(plain, []byte("SwaggerUIBundle")) {
		t.Errorf("got %d bytes without the viewer", len(plain))
	}
	for accepted, packed := range map[string]bool{
		"": false, "gzip": true, "deflate, GZIP;q=0.5": true, "gzip;q=0": false, "gzip; q=0.000": false, "br": false, "*": false,
	} {
		got := ask(t, path, "Accept-Encoding", accepted)
		body := io.Reader(got.Body)
		if is := got.Header().Get("Content-Encoding") == "gzip"; is != packed {
			t.Errorf("%q: got packed %v, want %v", accepted, is, packed)
		} else if is {
			var err error
			if body, err = gzip.NewReader(got.Body); err != nil {
				t.Errorf("%q: %v", accepted, err)
				continue
			}
		}
		if content, err := io.ReadAll(body); err != nil || !bytes.Equal(content, plain) {
			t.Errorf("%q: got %d bytes, %v, want %d", accepted, len(content), err, len(plain))
		}
	}
}
