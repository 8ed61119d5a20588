package natsd

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/testkit/disktest"
)

// A disk that was full to the last byte: the engine gives up, and is started
// again when there is room, under connections that stay. What was acknowledged
// is there.
func TestRepair_FullDisk(t *testing.T) {
	disk := disktest.Tmpfs(t, 64*mib)
	core, logged := observer.New(zap.WarnLevel)
	s := mustStart(t, Options{Dir: filepath.Join(disk, "data"), InProcessOnly: true, Log: zap.New(core)})
	t.Cleanup(s.Stop)
	conn, err := s.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	js := mustStream(t, conn)
	publish := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := js.Publish(ctx, "s.x", make([]byte, 16<<10))
		return err
	}
	stored := 0
	remove := disktest.Fill(t, disk, mib)
	until(t, func() bool {
		if publish() == nil {
			stored++
		}
		return s.Disk().Writable() != nil
	})
	if stored == 0 {
		t.Fatal("stored nothing before the disk was full")
	}
	if err := s.Disk().Room(); err == nil || !strings.Contains(err.Error(), "cannot write") {
		t.Errorf("got %v, want an error that says what is wrong", err)
	}
	if err := publish(); err == nil {
		t.Error("published although the disk is full")
	}

	remove()
	until(t, func() bool { return s.Disk().Writable() == nil })
	until(t, func() bool { return publish() == nil }) // the connection takes a moment to find the engine
	last := latest(t, js)
	if last < uint64(stored)+1 {
		t.Errorf("the stream ends at %d, want what was acknowledged: %d and one more", last, stored)
	}
	if logged.FilterMessageSnippet("it is started again once the disk can be written").Len() != 1 {
		t.Errorf("got the lines %v, want one about the engine", logged.All())
	}
}

// An engine that complains about something else goes on.
func TestRepair_OtherComplaints(t *testing.T) {
	s := mustStart(t, Options{Dir: t.TempDir(), InProcessOnly: true})
	t.Cleanup(s.Stop)
	before := s.engine()
	s.alarm <- struct{}{}
	s.alarm <- struct{}{} // taken once the first was looked at
	if s.engine() != before || s.Disk().Writable() != nil {
		t.Error("the engine was started again although it works")
	}
}

func latest(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.LastSeq
}

// until asks for what tells nobody when it happens.
func until(t *testing.T, done func() bool) {
	t.Helper()
	over := time.NewTimer(time.Minute)
	defer over.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-over.C:
			t.Fatal(fmt.Errorf("not within a minute"))
		}
	}
}
