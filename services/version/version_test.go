package version

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/object"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// world is a deployment with nothing but releases.
type world struct {
	*testing.T
	bus   *bus.Bus
	store *object.Store
	dir   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	b := bustest.New(t)
	d := streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}
	if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
		t.Fatal(err)
	}
	return &world{t, b, object.Open(b, streams.ApksBucket), t.TempDir()}
}

// start runs an instance with a file of its own, and gives it once it answers.
func (w *world) start(name string, now func() time.Time) (v *Version, stop func()) {
	w.Helper()
	dir := filepath.Join(w.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.Fatal(err)
	}
	v = New(Deps{Deps: service.Deps{
		Bus: w.bus, Dir: dir, Log: zaptest.NewLogger(w), Metrics: prometheus.NewRegistry(), Now: now,
	}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		defer cancel() // so that nobody waits for one that failed
		ended <- v.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("run: %v", err)
		}
	})
	w.Cleanup(stop)
	if err := v.Ready(ctx); err != nil {
		w.Fatal(err)
	}
	return v, stop
}

func ask[A, Q any](w *world, subject string, q Q) (A, error) {
	return bus.Call[A](context.Background(), w.bus, subject, q)
}

func (w *world) upload(content string) object.Object {
	w.Helper()
	put, err := w.store.Put(w.Context(), strings.NewReader(content), nil)
	if err != nil {
		w.Fatal(err)
	}
	return put
}

func release(code streams.VersionCode, o object.Object) request.PublishVersion {
	return request.PublishVersion{
		Code: code, Version: fmt.Sprintf("1.%d", code), Package: "org.example.gateway", Notes: "- Bug fixes",
		Size: o.Size, SHA256: o.SHA256, Object: o.Name,
	}
}

func (w *world) publish(code streams.VersionCode) error {
	w.Helper()
	_, err := ask[request.AppVersion](w, request.VersionPublish, release(code, w.upload(fmt.Sprint("app ", code))))
	return err
}

func (w *world) activate(code streams.VersionCode) error {
	_, err := ask[request.AppVersion](w, request.VersionActivate, request.ActivateVersion{Code: code})
	return err
}

func (w *world) withdraw(code streams.VersionCode) error {
	_, err := ask[request.AppVersion](w, request.VersionWithdraw, request.WithdrawVersion{Code: code})
	return err
}

// listed gives the releases in short: 5 4* 3- where 4 is active and 3 withdrawn.
func (w *world) listed() string {
	w.Helper()
	got, err := ask[request.VersionsListed](w, request.VersionList, request.Versions{})
	if err != nil {
		w.Fatal(err)
	}
	var words []string
	for _, v := range got.Versions {
		word := v.Code.String()
		if v.Active {
			word += "*"
		}
		if v.Withdrawn {
			word += "-"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return fault.As(err).Code
}

func TestReleases(t *testing.T) {
	w := newWorld(t)
	w.start("one", time.Now)
	steps := []struct {
		what string
		do   func() error
		code string
		want string
	}{
		{"publish 4", func() error { return w.publish(4) }, "", "4"},
		{"publish 5", func() error { return w.publish(5) }, "", "5 4"},
		{"publish 5 again", func() error { return w.publish(5) }, "version_exists", "5 4"},
		{"activate 4", func() error { return w.activate(4) }, "", "5 4*"},
		{"activate 4 again", func() error { return w.activate(4) }, "", "5 4*"},
		{"activate 5", func() error { return w.activate(5) }, "", "5* 4"},
		{"activate 6", func() error { return w.activate(6) }, "version_not_found", "5* 4"},
		{"withdraw 4", func() error { return w.withdraw(4) }, "", "5* 4-"},
		{"activate 4 once more", func() error { return w.activate(4) }, "version_withdrawn", "5* 4-"},
		{"publish 4 once more", func() error { return w.publish(4) }, "version_exists", "5* 4-"},
		{"withdraw 5", func() error { return w.withdraw(5) }, "", "5- 4-"},
		{"withdraw 5 again", func() error { return w.withdraw(5) }, "", "5- 4-"},
		{"withdraw 7", func() error { return w.withdraw(7) }, "version_not_found", "5- 4-"},
		{"publish 2", func() error { return w.publish(2) }, "", "5- 4- 2"},
	}
	for _, step := range steps {
		if got := code(step.do()); got != step.code {
			t.Errorf("%s: got %q, want %q", step.what, got, step.code)
		}
		if got := w.listed(); got != step.want {
			t.Errorf("%s: got %q, want %q", step.what, got, step.want)
		}
	}
	other := release(9, w.upload("another app"))
	other.Package = "org.example.other"
	if _, err := ask[request.AppVersion](w, request.VersionPublish, other); code(err) != "other_package" {
		t.Errorf("another package: got %v", err)
	}
	if _, err := ask[request.VersionChecked](w, request.VersionCheck, request.CheckVersion{Code: 9, Package: "org.example.other"}); code(err) != "other_package" {
		t.Errorf("check another package: got %v", err)
	}
}

// A release that would eat up what is kept for reports is refused before it is
// uploaded.
func TestCheck_NoRoom(t *testing.T) {
	w := newWorld(t)
	v, _ := w.start("one", time.Now)
	v.room = func(bytes int64) error {
		if bytes > 1000 {
			return bus.ErrFull
		}
		return nil
	}
	for size, want := range map[int64]string{500: "", 501: "disk_full"} {
		q := request.CheckVersion{Code: 1, Package: "org.example.gateway", Size: size}
		if _, err := ask[request.VersionChecked](w, request.VersionCheck, q); code(err) != want {
			t.Errorf("%d bytes: got %v, want %q", size, err, want)
		}
	}
}

func TestPublish_Refuses(t *testing.T) {
	w := newWorld(t)
	w.start("one", time.Now)
	whole := w.upload("an app")
	for want, change := range map[string]func(*request.PublishVersion){
		"not_uploaded":     func(q *request.PublishVersion) { q.Object = "none" },
		"other_file":       func(q *request.PublishVersion) { q.Size++ },
		"invalid_release":  func(q *request.PublishVersion) { q.SHA256 = "abc" },
		"invalid_notes":    func(q *request.PublishVersion) { q.Notes = strings.Repeat("x", maxNotes+1) },
		"invalid_min_code": func(q *request.PublishVersion) { q.MinCode = q.Code + 1 },
	} {
		q := release(5, whole)
		change(&q)
		if _, err := ask[request.AppVersion](w, request.VersionPublish, q); code(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	stream, err := w.bus.JS.Stream(t.Context(), "OBJ_"+streams.ApksBucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), stream.CachedInfo().State.FirstSeq); err != nil {
		t.Fatal(err)
	}
	if _, err := ask[request.AppVersion](w, request.VersionPublish, release(5, whole)); code(err) != "upload_damaged" {
		t.Errorf("a damaged upload: got %v", err)
	}
	if got := w.listed(); got != "" {
		t.Errorf("got releases %q, want none", got)
	}
}

// A file that was uploaded too long ago may be swept at any moment, so it is not published.
func TestPublish_TooLate(t *testing.T) {
	w := newWorld(t)
	w.start("one", func() time.Time { return time.Now().Add(publishWithin + time.Minute) })
	if err := w.publish(5); code(err) != "upload_expired" {
		t.Errorf("got %v, want upload_expired", err)
	}
}

// Two instances decide about the same: each code once, one app only.
func TestTwoInstances(t *testing.T) {
	w := newWorld(t)
	w.start("one", time.Now)
	w.start("two", time.Now)
	var all sync.WaitGroup
	var mu sync.Mutex
	won := map[streams.VersionCode]int{}
	for i := range 24 {
		code := streams.VersionCode(i%6 + 1)
		q := release(code, w.upload(fmt.Sprint("app ", i)))
		all.Go(func() {
			_, err := ask[request.AppVersion](w, request.VersionPublish, q)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won[code]++
			} else if !errors.Is(err, fault.New(fault.Conflict, "version_exists", "")) {
				t.Errorf("publish %v: %v", code, err)
			}
		})
	}
	all.Wait()
	for code := streams.VersionCode(1); code <= 6; code++ {
		if won[code] != 1 {
			t.Errorf("code %v was published %d times, want once", code, won[code])
		}
	}
}

// The rebuilt fold equals the live one, and knows the downloads.
func TestRebuild(t *testing.T) {
	w := newWorld(t)
	v, stop := w.start("one", time.Now)
	for _, err := range []error{w.publish(1), w.publish(2), w.publish(3), w.activate(2), w.withdraw(1)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var last uint64
	for i := range 10 {
		msg, err := event.Message(streams.DownloadSubject(2), event.Downloaded{Code: 2, Count: int64(i)})
		if err != nil {
			t.Fatal(err)
		}
		stored, err := w.bus.JS.PublishMsg(t.Context(), msg)
		if err != nil {
			t.Fatal(err)
		}
		last = stored.Sequence
	}
	if err := v.file.Wait(t.Context(), streams.ReleaseStream, last); err != nil {
		t.Fatal(err)
	}
	dump := func(v *Version) string {
		t.Helper()
		var text bytes.Buffer
		if err := v.file.Dump(&text); err != nil {
			t.Fatal(err)
		}
		return text.String()
	}
	want := dump(v)
	if !strings.Contains(want, "downloads 2 45\n") || !strings.Contains(want, "state active 2\n") {
		t.Errorf("got the dump\n%s", want)
	}
	if difference, err := v.file.Verify(t.Context()); err != nil || difference != "" {
		t.Errorf("verify: got %q, %v", difference, err)
	}
	if err := v.file.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, dump(v)); diff != "" {
		t.Errorf("after a rebuild (-live +rebuilt):\n%s", diff)
	}
	stop()
	if err := os.Remove(filepath.Join(w.dir, "one", Projection+".db")); err != nil {
		t.Fatal(err)
	}
	again, _ := w.start("one", time.Now)
	if diff := cmp.Diff(want, dump(again)); diff != "" {
		t.Errorf("after the file was deleted (-live +folded):\n%s", diff)
	}
	got, err := ask[request.VersionsListed](w, request.VersionList, request.Versions{})
	if err != nil {
		t.Fatal(err)
	}
	two := request.AppVersion{Code: 2, Version: "1.2", Package: "org.example.gateway", Notes: "- Bug fixes", Size: 5, Active: true, Downloads: 45}
	if diff := cmp.Diff(two, got.Versions[1], cmpopts.IgnoreFields(request.AppVersion{}, "SHA256", "Object", "Published")); diff != "" {
		t.Errorf("release (-want +got):\n%s", diff)
	}
}

// What a killed command left of an upload goes, and with it a file that nobody
// made a release of; a release's file stays.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	_, stop := w.start("one", time.Now)
	if err := w.publish(1); err != nil {
		t.Fatal(err)
	}
	left := w.upload("nobody published this")
	if _, err := w.bus.JS.Publish(t.Context(), "$O."+streams.ApksBucket+".C.half", []byte("half an app")); err != nil {
		t.Fatal(err)
	}
	stop()
	v, stop := w.start("two", time.Now)
	v.sweep(t.Context())
	if _, err := w.store.Find(t.Context(), left.Name); err != nil {
		t.Errorf("a young upload: %v", err)
	}
	stop()

	later := func() time.Time { return time.Now().Add(unfinished + time.Minute) }
	v, _ = w.start("three", later)
	v.sweep(t.Context())
	if _, err := w.store.Find(t.Context(), left.Name); !errors.Is(err, object.ErrNotFound) {
		t.Errorf("an old upload: got %v, want it gone", err)
	}
	stream, err := w.bus.JS.Stream(t.Context(), "OBJ_"+streams.ApksBucket)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := stream.CachedInfo().State.Msgs, uint64(2); got != want {
		t.Errorf("got %d messages in the store, want the %d of the release", got, want)
	}
}

// Nothing that stands in the stream stops the fold.
func TestFoldTakesAnything(t *testing.T) {
	w := newWorld(t)
	v, _ := w.start("one", time.Now)
	var last uint64
	for _, one := range []struct{ subject, kind, data string }{
		{"app.release.x", "release.published.v1", `{}`},
		{"app.release.7", "release.published.v1", `not JSON`},
		{"app.release.7", "release.activated.v1", `{}`},
		{"app.release.7", "release.withdrawn.v1", `{}`},
		{"app.release.7", "release.renamed.v9", `{}`},
		{"app.download.7", "release.downloaded.v1", `{"count":-5}`},
		{"app.download.07", "release.downloaded.v1", `{"count":5}`},
	} {
		msg, err := event.Message(one.subject, event.Barrier{})
		if err != nil {
			t.Fatal(err)
		}
		msg.Header.Set(event.KindHeader, one.kind)
		msg.Data = []byte(one.data)
		stored, err := w.bus.JS.PublishMsg(t.Context(), msg)
		if err != nil {
			t.Fatal(err)
		}
		last = stored.Sequence
	}
	if err := v.file.Wait(t.Context(), streams.ReleaseStream, last); err != nil {
		t.Fatal(err)
	}
	if got := w.listed(); got != "" {
		t.Errorf("got releases %q, want none", got)
	}
	if err := w.publish(7); err != nil {
		t.Errorf("publish after them: %v", err)
	}
}

// Of two apps that are published at the same moment one becomes the app.
func TestTwoInstances_OneApp(t *testing.T) {
	w := newWorld(t)
	w.start("one", time.Now)
	w.start("two", time.Now)
	for round := range 10 {
		var all sync.WaitGroup
		var mu sync.Mutex
		names := map[string]bool{}
		var published []streams.VersionCode
		for i := range 8 {
			q := release(streams.VersionCode(10*round+i+1), w.upload(fmt.Sprint("app ", round, i)))
			q.Package = fmt.Sprint("org.example.app", i%4)
			all.Go(func() {
				_, err := ask[request.AppVersion](w, request.VersionPublish, q)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					names[q.Package] = true
					published = append(published, q.Code)
				} else if code(err) != "other_package" {
					t.Errorf("publish %v: %v", q.Code, err)
				}
			})
		}
		all.Wait()
		if len(names) != 1 {
			t.Errorf("got the apps %v, want one", names)
		}
		for _, code := range published { // so that the next app may be another
			if err := w.withdraw(code); err != nil {
				t.Fatal(err)
			}
		}
	}
}
