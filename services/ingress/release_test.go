package ingress_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/object"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// app stores a file of so many bytes and lists it as the active release.
func (f *fixture) app(code streams.VersionCode, size int) (request.AppVersion, []byte) {
	f.t.Helper()
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(code)}).Read(content)
	put, err := object.Open(f.Bus, streams.ApksBucket).Put(context.Background(), bytes.NewReader(content), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	v := request.AppVersion{
		Code: code, Version: "1.2.0", Package: "org.example.gateway", Notes: "- Bug fixes", Size: put.Size, SHA256: put.SHA256,
		Object: put.Name, Published: time.Date(2026, 1, 26, 12, 0, 0, 5e6, time.UTC), Active: true,
	}
	f.Version.Set(v)
	return v, content
}

// fetched is a whole answer. One that broke off has an error.
type fetched struct {
	status int
	header http.Header
	body   []byte
	err    error
}

func (a fetched) String() string {
	return fmt.Sprintf("%d, %d bytes %.100q, %v", a.status, len(a.body), a.body, a.err)
}

// has says whether it is a whole answer with that status and body.
func (a fetched) has(status int, body []byte) bool {
	return a.err == nil && a.status == status && bytes.Equal(a.body, body)
}

// fetch makes a request.
func (f *fixture) fetch(method, path string, header ...string) fetched {
	f.t.Helper()
	r, err := http.NewRequest(method, f.URL+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := f.Client.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	return fetched{answer.StatusCode, answer.Header, body, err}
}

// counted gives what the stream says of a release's downloads, once it is as much as is wanted.
func (f *fixture) counted(code streams.VersionCode, want int64) int64 {
	f.t.Helper()
	consumer, err := f.Bus.JS.OrderedConsumer(context.Background(), streams.ReleaseStream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{streams.DownloadSubject(code)},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	sum := int64(0)
	for sum < want {
		m, err := consumer.Next(jetstream.FetchMaxWait(30 * time.Second))
		if err != nil {
			f.t.Fatalf("got %d downloads counted, want %d: %v", sum, want, err)
		}
		d, err := event.Decode[event.Downloaded](m.Data())
		if err != nil {
			f.t.Fatal(err)
		}
		sum += d.Count
	}
	return sum
}

func TestDownload(t *testing.T) {
	f := start(t, options{})
	v, content := f.app(5, 1<<20)
	size := len(content)
	etag := `"` + v.SHA256 + `"`
	tests := []struct {
		name, method string
		header       []string
		status       int
		body         []byte
		headers      map[string]string
		counts       bool
	}{
		{"whole", "GET", nil, 200, content, map[string]string{
			"Content-Type": "application/vnd.android.package-archive", "Content-Disposition": `attachment; filename="app-v1.2.0.apk"`,
			"Content-Length": fmt.Sprint(size), "ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "no-cache",
		}, true},
		{"head", "HEAD", nil, 200, nil, map[string]string{
			"Content-Type": "application/vnd.android.package-archive", "Content-Disposition": `attachment; filename="app-v1.2.0.apk"`,
			"Content-Length": fmt.Sprint(size), "ETag": etag,
		}, false},
		{"the begin", "GET", []string{"Range", "bytes=0-99"}, 206, content[:100], map[string]string{
			"Content-Range": fmt.Sprintf("bytes 0-99/%d", size), "Content-Length": "100", "ETag": etag,
		}, false},
		{"the last byte", "GET", []string{"Range", "bytes=-1"}, 206, content[size-1:], nil, false},
		{"the last byte again", "GET", []string{"Range", "bytes=-1"}, 206, content[size-1:], nil, false},
		{"all but the begin and the end", "GET", []string{"Range", fmt.Sprintf("bytes=100-%d", size-2)}, 206, content[100 : size-1], nil, true},
		{"the begin again", "GET", []string{"Range", "bytes=0-99"}, 206, content[:100], nil, false},
		{"the rest", "GET", []string{"Range", "bytes=100-", "If-Range", etag}, 206, content[100:], map[string]string{
			"Content-Range": fmt.Sprintf("bytes 100-%d/%d", size-1, size),
		}, true},
		{"the rest of another file", "GET", []string{"Range", "bytes=100-", "If-Range", `"other"`}, 200, content, nil, true},
		{"the rest again", "GET", []string{"Range", "bytes=100-"}, 206, content[100:], nil, false},
		{"head of the last byte", "HEAD", []string{"Range", "bytes=-1"}, 206, nil, nil, false},
		{"beyond the end", "GET", []string{"Range", fmt.Sprintf("bytes=%d-", size)}, 416, nil, map[string]string{
			"Content-Range": fmt.Sprintf("bytes */%d", size),
		}, false},
		{"several parts", "GET", []string{"Range", "bytes=0-1,5-6"}, 200, content, nil, true},
		{"known", "GET", []string{"If-None-Match", etag}, 304, []byte{}, map[string]string{"ETag": etag}, false},
		{"another is known", "GET", []string{"If-None-Match", `"other"`}, 200, content, nil, true},
	}
	want := int64(0)
	for _, path := range []string{"/download/app.apk", "/api/download/5"} {
		for _, tt := range tests {
			t.Run(path+" "+tt.name, func(t *testing.T) {
				got := f.fetch(tt.method, path, tt.header...)
				if got.err != nil || got.status != tt.status {
					t.Fatalf("got %v, want %d", got, tt.status)
				}
				if tt.body != nil && !bytes.Equal(got.body, tt.body) {
					t.Errorf("got %d bytes, want %d others", len(got.body), len(tt.body))
				}
				for name, value := range tt.headers {
					if got := got.header.Get(name); got != value {
						t.Errorf("%s: got %q, want %q", name, got, value)
					}
				}
			})
			if tt.counts {
				want++
			}
		}
	}
	f.StopIngress() // which stores what is counted
	if got := f.counted(5, want); got != want {
		t.Errorf("got %d downloads counted, want %d", got, want)
	}
}

// A client that leaves in the middle has downloaded nothing.
func TestDownload_BrokenOff(t *testing.T) {
	f := start(t, options{})
	_, content := f.app(5, 16<<20)
	// The begin of 1 MiB that it has had is not all that was sent to it: the rest is more than it lacks.
	for range 3 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(f.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "GET /download/app.apk HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, bufio.NewReader(conn), 1<<20); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	if got := f.fetch(http.MethodGet, "/download/app.apk", "Range", "bytes=1048576-"); !got.has(206, content[1<<20:]) {
		t.Errorf("resumed: got %v", got)
	}
	f.StopIngress()
	if got := f.counted(5, 1); got != 1 || f.Stored(streams.ReleaseStream, streams.DownloadSubjects) != 1 {
		t.Errorf("got %d downloads counted, want the one that was resumed", got)
	}
}

// Whatever happened to the store or to the copy: nobody gets other bytes.
func TestDownload_Damaged(t *testing.T) {
	f := start(t, options{})
	stream, err := f.Bus.JS.Stream(t.Context(), "OBJ_"+streams.ApksBucket)
	if err != nil {
		t.Fatal(err)
	}
	f.app(5, 1<<20)
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), info.State.LastSeq-3); err != nil { // one of the chunks
		t.Fatal(err)
	}
	for range 2 {
		if got := f.fetch(http.MethodGet, "/download/app.apk"); !got.has(500, []byte(`{"error":"The file of this version is damaged","code":"version_damaged"}`)) {
			t.Errorf("a chunk is gone: got %v", got)
		}
	}
	if n := f.Logs.FilterMessage("release not copied out of the store").Len(); n != 1 {
		t.Errorf("got %d tries, want one for both downloads", n)
	}

	// A copy that the disk has changed is made again by the next process.
	v, content := f.app(6, 1<<20)
	if got := f.fetch(http.MethodGet, "/download/app.apk"); !got.has(200, content) {
		t.Fatalf("got %v", got)
	}
	copied := filepath.Join(f.dir, "projections", "apks", v.SHA256+".apk")
	garbled := bytes.Clone(content)
	garbled[12345] ^= 1
	if err := os.WriteFile(copied, garbled, 0o600); err != nil {
		t.Fatal(err)
	}
	f.Restart()
	f.Version.Set(v)
	if got := f.fetch(http.MethodGet, "/download/app.apk"); !got.has(200, content) {
		t.Errorf("a garbled copy: got %v", got)
	}
	// One that somebody has removed is made again at once.
	if err := os.Remove(copied); err != nil {
		t.Fatal(err)
	}
	if got := f.fetch(http.MethodGet, "/download/app.apk"); !got.has(200, content) {
		t.Errorf("a removed copy: got %v", got)
	}
}

// Many that ask at once wait for one copy; copies of what was withdrawn go.
func TestDownload_Copies(t *testing.T) {
	f := start(t, options{})
	_, content := f.app(5, 4<<20)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if got := f.fetch(http.MethodGet, "/download/app.apk"); !got.has(200, content) {
				t.Errorf("got %v", got)
			}
		})
	}
	all.Wait()
	v, next := f.app(6, 1000)
	if got := f.fetch(http.MethodGet, "/download/app.apk"); !got.has(200, next) {
		t.Errorf("got %v", got)
	}
	files, err := os.ReadDir(filepath.Join(f.dir, "projections", "apks"))
	if err != nil || len(files) != 1 || files[0].Name() != v.SHA256+".apk" {
		t.Errorf("got copies %v, %v, want that of the release that stands", files, err)
	}
}

func TestDownload_Crowd(t *testing.T) {
	f := start(t, options{Config: func(c *ingress.Config) { c.MaxDownloads = 1 }})
	f.app(5, 32<<20)
	slow, err := f.Client.Get(f.URL + "/download/app.apk") // and reads no more than the head
	if err != nil {
		t.Fatal(err)
	}
	got := f.fetch(http.MethodGet, "/api/download/5")
	if !got.has(503, []byte(`{"error":"Too many downloads are under way, try again","code":"too_many_downloads"}`)) || got.header.Get("Retry-After") != "10" {
		t.Errorf("got %v", got)
	}
	_ = slow.Body.Close()
}

func TestDownload_Links(t *testing.T) {
	link := func(t *testing.T, f *fixture, header ...string) string {
		t.Helper()
		var got struct {
			DownloadURL string `json:"downloadUrl"`
		}
		if err := json.Unmarshal(f.fetch(http.MethodGet, "/api/app-version", header...).body, &got); err != nil {
			t.Fatal(err)
		}
		return got.DownloadURL
	}
	forwarded := []string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "sms.example.org, inner"}
	for name, tt := range map[string]struct {
		change func(*ingress.Config)
		header []string
		want   string // "": of the request itself
	}{
		"a public address":        {func(c *ingress.Config) { c.PublicURL = "https://public.example.org/sms/" }, forwarded, "https://public.example.org/sms/download/app.apk"},
		"the request's own":       {nil, nil, ""},
		"a trusted proxy's":       {nil, forwarded, "https://sms.example.org/download/app.apk"},
		"another proxy's":         {func(c *ingress.Config) { c.TrustedProxies = []string{"192.0.2.1"} }, forwarded, ""},
		"no host":                 {nil, []string{"X-Forwarded-Host", `evil"host/`}, "/download/app.apk"},
		"no scheme":               {nil, []string{"X-Forwarded-Proto", "javascript"}, ""},
		"an address of version 6": {nil, []string{"X-Forwarded-Host", "[2001:db8::1]:8443"}, "http://[2001:db8::1]:8443/download/app.apk"},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, options{Config: tt.change})
			f.app(5, 10)
			want := tt.want
			if want == "" {
				want = f.URL + "/download/app.apk"
			}
			if got := link(t, f, tt.header...); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// The paths of releases and those of the queue dialect stay apart.
func TestDownload_Routes(t *testing.T) {
	f := start(t, options{})
	token := f.Token("acme", nil)
	for request, want := range map[string]string{
		"GET /api/app-version":                   "404 no_active_version",
		"GET /api/app-versions":                  "200 ",
		"GET /download/app.apk":                  "404 no_active_version",
		"GET /api/download/5":                    "404 version_not_found",
		"GET /api/download/05":                   "404 version_not_found",
		"GET /api/download/five":                 "404 version_not_found",
		"GET /api/download/99999999999999999999": "404 version_not_found",
		"GET /api/download/get_messages":         "404 version_not_found",
		"GET /api/download":                      "404 not_found",
		"GET /download/other.apk":                "404 not_found",
		"POST /api/app-version":                  "405 method_not_allowed",
		"POST /download/app.apk":                 "405 method_not_allowed",
		"POST /api/download/queue":               "401 ", // of the queue dialect: a token "download"
		"GET /api/app-version/get_messages":      "401 ",
		"GET /api/" + token + "/get_messages":    "200 ",
		"GET /api/" + token + "/app-version":     "404 not_found",
		"HEAD /api/app-versions":                 "200 ",
		"DELETE /api/" + token + "/get_messages": "405 method_not_allowed",
	} {
		method, path, _ := strings.Cut(request, " ")
		answer := f.fetch(method, path)
		var body struct{ Code string }
		_ = json.Unmarshal(answer.body, &body)
		if got := fmt.Sprint(answer.status, " ", body.Code); got != want {
			t.Errorf("%s: got %s, want %s", strings.ReplaceAll(request, token, "{token}"), got, want)
		}
	}
}
