package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/streams"
)

// A directory of the first version gets what app releases take, once. What is
// missing later was lost.
func TestDirectoryWithoutReleases(t *testing.T) {
	simulate(t, func(t *testing.T) {
		dir := t.TempDir()
		first := start(t, dir)
		token := first.Token.Reveal()
		first.queue(t, token, "secret-text-7")
		first.stop()
		for _, name := range []string{streams.ReleaseStream, "OBJ_" + streams.ApksBucket} {
			deleteStream(t, dir, name)
		}
		if err := os.Remove(filepath.Join(dir, "engine", releasesFile)); err != nil {
			t.Fatal(err)
		}

		second := start(t, dir)
		if got := second.call(t, "GET", "app-versions", "", ""); got != `{"versions":[]}` {
			t.Errorf("got %s, want no releases", got)
		}
		if texts, _ := second.pull(t, token, ""); len(texts) != 1 {
			t.Errorf("got %d messages, want the one that was there", len(texts))
		}
		second.stop()

		deleteStream(t, dir, streams.ReleaseStream)
		err := Run(t.Context(), settings(dir), Deps{Log: testLog(t), Version: "0.0.0-test", Listener: httpx.NewMemory(), InProcessOnly: true})
		if err == nil || !strings.Contains(err.Error(), "RELEASE is missing") {
			t.Errorf("got error %v, want one that names the missing stream", err)
		}
	})
}

// A directory whose messages are lost gets nothing new.
func TestLostDirectoryGetsNoReleases(t *testing.T) {
	simulate(t, func(t *testing.T) {
		dir := t.TempDir()
		start(t, dir).stop()
		for _, name := range []string{streams.ReleaseStream, streams.EnqueueStream(0)} {
			deleteStream(t, dir, name)
		}
		if err := os.Remove(filepath.Join(dir, "engine", releasesFile)); err != nil {
			t.Fatal(err)
		}
		err := Run(t.Context(), settings(dir), Deps{Log: testLog(t), Version: "0.0.0-test", Listener: httpx.NewMemory(), InProcessOnly: true})
		if err == nil || !strings.Contains(err.Error(), "ENQUEUE_0 is missing") || !strings.Contains(err.Error(), "RELEASE is missing") {
			t.Errorf("got error %v, want one that names both streams", err)
		}
	})
}
