package projection_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/pkg/testkit/disktest"
)

// On a full disk the fold waits, reports that to callers of Err and Wait, and goes on
// by itself when there is room, with nothing missing and nothing twice.
func TestFullDisk(t *testing.T) {
	disk := disktest.Tmpfs(t, 8<<20)
	b := bustest.New(t)
	makeStreams(t, b)
	core, logged := observer.New(zap.InfoLevel)
	f := start(t, filepath.Join(disk, "tally.db"), b, tally{}, projection.Options{Log: zap.New(core)})
	publishMany(t, b, 10)
	f.catchUp(b)
	must(t, f.Err())
	ctx, cancel := patient(t)
	defer cancel()

	remove := disktest.Fill(t, disk, 0)
	data := strings.Repeat("x", 64<<10)
	waited := make(chan error, 1)
	seq := publish(t, b, "ORDERS.a", data)
	first := seq
	go func() { waited <- f.Wait(ctx, orders, first) }()
	for n := 0; f.Err() == nil; n++ { // until what the file has of its own is used up
		if n == 200 {
			t.Fatal("the disk does not get full")
		}
		seq = publish(t, b, "ORDERS.a", data)
		if err := f.Wait(ctx, orders, seq); err != nil && fault.As(err).Code != projection.Unwritten {
			t.Fatal(err)
		}
	}
	if err := <-waited; err != nil && fault.As(err).Code != projection.Unwritten {
		t.Errorf("who waited before was told: %v", err)
	}
	applied := f.Cursor(orders)
	for name, err := range map[string]error{"Err": f.Err(), "Wait": f.Wait(ctx, orders, seq)} {
		if found := fault.As(err); !fault.Is(err, fault.Unavailable) || found.Code != projection.Unwritten {
			t.Errorf("%s: got %v, want the fault that says what is wrong", name, err)
		}
	}
	if got := f.Cursor(orders); got != applied || got >= seq {
		t.Errorf("the cursor moved from %d to %d, of %d, on a full disk", applied, got, seq)
	}
	if _, err := f.Verify(ctx); err == nil {
		t.Error("verified without room for a second file")
	}
	if err := f.Rebuild(ctx); err == nil {
		t.Error("rebuilt without room for a second file")
	}

	remove()
	for f.Err() != nil {
		// Who waits while it is written again is told of neither.
		pause, stop := context.WithTimeout(ctx, 10*time.Millisecond)
		<-pause.Done()
		stop()
	}
	f.await(orders, seq)
	if difference, err := f.Verify(ctx); difference != "" || err != nil {
		t.Errorf("after the disk had room again: %q, %v", difference, err)
	}
	for _, line := range []string{"projection cannot be written", "projection is written again"} {
		if n := logged.FilterMessageSnippet(line).Len(); n == 0 {
			t.Errorf("got no line that says %q", line)
		}
	}
}

// A file that cannot be made is no start, and says why.
func TestOpen_FullDisk(t *testing.T) {
	disk := disktest.Tmpfs(t, 1<<20)
	b := bustest.New(t)
	makeStreams(t, b)
	disktest.Fill(t, disk, 0)
	path := filepath.Join(disk, "tally.db")
	if _, err := projection.Open(path, b, tally{}, projection.Options{}); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("got %v, want an error that names the reason", err)
	}
}

// A disk that can only be read is no start either, and leaves the file alone.
func TestOpen_ReadOnly(t *testing.T) {
	disk := disktest.Tmpfs(t, 8<<20)
	b := bustest.New(t)
	makeStreams(t, b)
	publishMany(t, b, 10)
	path := filepath.Join(disk, "tally.db")
	f := start(t, path, b, tally{}, projection.Options{})
	f.catchUp(b)
	f.stop()
	before, err := os.ReadFile(path)
	must(t, err)
	disktest.Remount(t, disk, "ro")
	if _, err := projection.Open(path, b, tally{}, projection.Options{}); err == nil || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("got %v, want an error that names the reason", err)
	}
	disktest.Remount(t, disk, "rw")
	after, err := os.ReadFile(path)
	must(t, err)
	if string(before) != string(after) {
		t.Error("the file was changed")
	}
	f = start(t, path, b, tally{}, projection.Options{})
	if got := f.Cursor(orders); got != 10 {
		t.Errorf("opened at %d, want 10", got)
	}
}
