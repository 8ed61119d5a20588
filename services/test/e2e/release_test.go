package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/pkg/testkit/apktest"
	"github.com/trunkline-sms/trunkline/pkg/testkit/httpgolden"
	"github.com/trunkline-sms/trunkline/streams"
)

// publish builds an app and publishes it by the command.
func (s *trunkline) publish(app apktest.App, flags ...string) []byte {
	s.Helper()
	content := apktest.Build(app)
	file := filepath.Join(s.TempDir(), "app.apk")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		s.Fatal(err)
	}
	s.command(append([]string{"release", "publish", file}, flags...)...)
	return content
}

// download gets a path and gives the whole answer.
func (s *trunkline) download(path string, header ...string) answer {
	s.Helper()
	got, err := api{s.Context(), s.client, s.url}.do(http.MethodGet, path, "", header...)
	if err != nil {
		s.Fatalf("download %s: %v", path, err)
	}
	return got
}

// downloads is how often the active release was downloaded, as apps are told.
func (s *trunkline) downloads() (count int) {
	s.Helper()
	var got struct {
		Downloads int `json:"downloads"`
	}
	answer := s.download("/api/app-version")
	if err := json.Unmarshal([]byte(answer.body), &got); err != nil {
		s.Fatalf("%v: %v", err, answer)
	}
	return got.Downloads
}

// The documented calls are answered as they are documented, with and without releases.
func TestRelease_Documents(t *testing.T) {
	everywhere(t, func(t *testing.T, newHost newHost, shards int) {
		s := launch(t, newHost, shards)
		replay := func(folder string, values map[string]string) {
			t.Helper()
			files, err := filepath.Glob("../../ingress/api/releases/testdata/" + folder + "/*.http")
			if err != nil || len(files) == 0 {
				t.Fatalf("golden files: got %d, %v", len(files), err)
			}
			for _, file := range files {
				httpgolden.Replay(t, s.client, s.url, file, values)
			}
		}
		replay("none", map[string]string{})
		content := s.publish(apktest.App{Version: "1.2.0", Code: 5}, "--notes=- Bug fixes\n- Performance improvements", "--min-code", "3", "--activate")
		s.publish(apktest.App{Version: "1.3.0-beta", Code: 6})
		testkit.Eventually(t, "every ingress hears of it", func() bool {
			return strings.Contains(s.download("/api/app-versions").body, `"versionCode":6`)
		})
		sum := sha256.Sum256(content)
		replay("published", map[string]string{"url": s.url, "size": fmt.Sprint(len(content)), "sha256": hex.EncodeToString(sum[:])})
	})
}

// An app that was published is downloaded byte for byte, also in two parts, and what is counted is known after stops,
// kills and rebuilds.
func TestRelease_Downloads(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 1)
	content := s.publish(apktest.App{Padding: 5 << 20}, "--activate")
	whole := s.download("/download/app.apk")
	if whole.body != string(content) {
		t.Fatalf("got %d bytes, want %d", len(whole.body), len(content))
	}
	first := s.download("/api/download/5", "Range", "bytes=0-999999").body
	rest := s.download("/api/download/5", "Range", "bytes=1000000-", "If-Range", whole.header.Get("ETag")).body
	if first+rest != string(content) {
		t.Errorf("resumed: got %d and %d bytes, want %d", len(first), len(rest), len(content))
	}
	if curl, err := exec.LookPath("curl"); err == nil {
		file := filepath.Join(t.TempDir(), "app.apk")
		begun := s.download("/download/app.apk", "Range", "bytes=0-3145727").body // as one that broke off
		if err := os.WriteFile(file, []byte(begun), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(curl, "-sSfC", "-", "-o", file, s.url+"/download/app.apk").CombinedOutput()
		if got, readErr := os.ReadFile(file); err != nil || readErr != nil || !bytes.Equal(got, content) {
			t.Errorf("curl resumed to %d bytes: %v %s", len(got), err, out)
		}
	} else {
		s.download("/download/app.apk")
	}
	testkit.Eventually(t, "three downloads are counted", func() bool { return s.downloads() == 3 })

	for what, again := range map[string]func(){
		"a stop":              func() { s.Stop(); s.Start() },
		"a kill":              func() { s.Kill(); s.Start() },
		"projections gone":    func() { s.Stop(); s.dropProjections(); s.Start() },
		"projections rebuilt": s.rebuild,
	} {
		again()
		if got := s.downloads(); got != 3 {
			t.Errorf("after %s: got %d downloads, want 3", what, got)
		}
		if got := s.download("/download/app.apk", "Range", "bytes=0-99999").body; got != string(content[:100000]) {
			t.Errorf("after %s: got %d other bytes", what, len(got))
		}
	}
	s.verify()
}

// chunks counts what the store holds.
func (s *trunkline) chunks() (n uint64) {
	s.Helper()
	s.withBus(func(b *bus.Bus) {
		stream, err := b.JS.Stream(s.Context(), "OBJ_"+streams.ApksBucket)
		if err != nil {
			s.Fatal(err)
		}
		n = stream.CachedInfo().State.Msgs
	})
	return n
}

// An upload that is cut off shows nobody anything; interrupted, it leaves nothing either.
func TestRelease_CutOff(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 1)
	file, size := filepath.Join(t.TempDir(), "app.apk"), many(40<<20, 100<<20)
	if err := os.WriteFile(file, apktest.Build(apktest.App{Padding: size}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, signal := range []os.Signal{os.Interrupt, os.Kill} {
		before := s.chunks()
		cmd := command(s, "release", "publish", file, "--activate", "--data", s.dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, "the upload is under way", func() bool { return s.chunks() > before+10 })
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Errorf("the upload ended well although it got %v", signal)
		}
		if got := s.download("/api/app-versions"); got.body != `{"versions":[]}` {
			t.Errorf("after %v: got %v", signal, got)
		}
		if got := s.chunks(); signal == os.Interrupt && got != 0 {
			t.Errorf("after %v: got %d chunks left, want none", signal, got)
		}
	}
	// What the killed one left is in nobody's way.
	s.command("release", "publish", file, "--activate")
	if got := len(s.download("/download/app.apk").body); got < size {
		t.Errorf("got %d bytes", got)
	}
}

// A bit that flips in a file in the store: no answer has the wrong bytes, and verify names the release.
func TestRelease_Damaged(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*trunkline){"stopped": (*trunkline).Stop, "killed": (*trunkline).Kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := launch(t, process, 1)
			s.publish(apktest.App{Code: 4, Version: "1.1.0", Padding: 100_000})
			content := s.publish(apktest.App{Code: 5, Padding: 1 << 20}, "--activate")
			end(s)
			blocks, err := filepath.Glob(filepath.Join(s.dir, "engine", "jetstream", "*", "streams", "OBJ_"+streams.ApksBucket, "msgs", "1.blk"))
			if err != nil || len(blocks) != 1 {
				t.Fatalf("got the blocks %v, %v, want one", blocks, err)
			}
			flip(t, blocks[0], string(content[600_000:600_100]))
			s.Start()
			got := s.download("/download/app.apk")
			if got.status != http.StatusInternalServerError || !strings.Contains(got.body, `"code":"version_damaged"`) {
				t.Errorf("got %d and %d bytes", got.status, len(got.body))
			}
			if !s.logged("release not copied out of the store", `"code":"5"`) {
				t.Error("the log does not name the release")
			}
			if said := s.failing("release", "verify"); !strings.Contains(said, "the files of version code 5 are damaged") {
				t.Errorf("verify said %q", said)
			}
			if got := s.download("/api/download/4").status; got != http.StatusOK {
				t.Errorf("the other release: got %d", got)
			}
		})
	}
}

// A stop does not wait for a phone that takes its file slowly.
func TestRelease_Stop(t *testing.T) {
	t.Parallel()
	s := launch(t, process, 1)
	s.publish(apktest.App{Padding: many(24<<20, 64<<20)}, "--activate")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/download/app.apk", nil)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := s.client.Do(request) // and reads no more than the head
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Body.Close()
	s.Stop()
	if got, err := io.ReadAll(slow.Body); err == nil {
		t.Errorf("got %d bytes and no error, want to see that the file is not whole", len(got))
	}
	s.Start()
	if got := s.downloads(); got != 0 {
		t.Errorf("got %d downloads, want none", got)
	}
}
