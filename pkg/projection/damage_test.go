package projection_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// An event that is damaged on the disk is passed over by the engine without a
// word. No rebuild takes the live file's place without it, verify does not call
// that equal, and a fold from nothing tells how many it misses. The pull that
// has to end first takes simulated time.
func TestDamagedEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		server, b := bustest.Start(t, dir)
		makeStreams(t, b)
		publishMany(t, b, 20)
		path := filepath.Join(t.TempDir(), "tally.db")
		f := start(t, path, b, tally{}, projection.Options{})
		f.catchUp(b)
		f.stop()
		server.Stop()
		flip(t, dir, orders, "ORDERS.b")
		server, b = bustest.Start(t, dir)
		defer server.Stop()

		f = start(t, path, b, tally{}, projection.Options{})
		ready(t, f)
		before := dump(t, f.File)
		if difference, err := f.Verify(t.Context()); err == nil || !strings.Contains(err.Error(), "damaged on the disk: 1 of ORDERS") {
			t.Errorf("verify: %q, %v, want an error that names the stream", difference, err)
		}
		if err := f.Rebuild(t.Context()); err == nil || !strings.Contains(err.Error(), "damaged on the disk: 1 of ORDERS") {
			t.Errorf("rebuild: %v, want an error that names the stream", err)
		}
		if dump(t, f.File) != before {
			t.Error("the live file was replaced")
		}
		f.await(orders, publish(t, b, "ORDERS.a", "more"))
		f.stop()

		core, logged := observer.New(zap.ErrorLevel)
		rebuilt := start(t, filepath.Join(t.TempDir(), "rebuilt.db"), b, tally{}, projection.Options{Log: zap.New(core)})
		must(t, rebuilt.Ready(t.Context()))
		rebuilt.stop()
		lines := logged.FilterMessageSnippet("lacks events").All()
		if len(lines) != 1 || !strings.Contains(lines[0].ContextMap()["error"].(string), "1 of "+orders) {
			t.Errorf("got the lines %v, want one about one event of %s", lines, orders)
		}
	})
}

// flip changes a bit in the data of a stream's first message under a subject.
func flip(t *testing.T, dir, stream, subject string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "engine", "jetstream", "*", "streams", stream, "msgs", "1.blk"))
	if err != nil || len(found) != 1 {
		t.Fatalf("got the blocks %v, %v", found, err)
	}
	data, err := os.ReadFile(found[0])
	must(t, err)
	at := bytes.Index(data, []byte(subject))
	if at < 0 {
		t.Fatal("the stream has no such message")
	}
	data[at+len(subject)+10] ^= 1
	must(t, os.WriteFile(found[0], data, 0o600))
}
