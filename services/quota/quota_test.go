package quota

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

var alice = streams.AccountIDOf("alice")

func TestExactlyTheLimitIsAccepted(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.start("a")
		s := w.startSender(1)
		w.await("a leader", w.granting)
		if got, want := s.enqueueAll(200, alice, 1, 100), 100; got != want {
			t.Errorf("accepted: got %d, want %d", got, want)
		}
		w.mustUse(alice, 100)
		if got, want := w.stored(alice), int64(100); got != want {
			t.Errorf("stored: got %d, want %d", got, want)
		}
	})
}

func TestLimitHoldsWhenTheFileIsDeleted(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 2)
		first := w.start("a")
		s := w.startSender(1)
		w.await("a leader", w.granting)
		if got, want := s.enqueueAll(60, alice, 1, 100), 60; got != want {
			t.Errorf("accepted before: got %d, want %d", got, want)
		}
		first.stop()
		if err := os.Remove(filepath.Join(w.projections("a"), "quota.db")); err != nil {
			t.Fatal(err)
		}
		w.start("a")
		w.await("a leader", w.granting)
		w.mustUse(alice, 60)
		if got, want := s.enqueueAll(140, alice, 1, 100), 40; got != want {
			t.Errorf("accepted after: got %d, want %d", got, want)
		}
		w.mustUse(alice, 100)
		if got, want := w.stored(alice), int64(100); got != want {
			t.Errorf("stored: got %d, want %d", got, want)
		}
	})
}

func TestRebuildEqualsLive(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 3)
		i := w.start("a")
		s := w.startSender(1)
		w.await("a leader", w.granting)
		for _, name := range []string{"alice", "bob", "carol", "dave"} {
			s.enqueueAll(10, streams.AccountIDOf(name), 3, 1000)
		}
		w.await("all is folded", func() bool { return i.quota.ledger.openGrants() == 0 })

		before := w.dump("before")
		verified, err := bus.Call[request.Verified](t.Context(), w.bus, request.ProjectionVerify(Projection), request.Verify{})
		if err != nil || verified.Difference != "" {
			t.Errorf("verify: got %q, %v, want no difference", verified.Difference, err)
		}
		if _, err := bus.Call[request.Rebuilt](t.Context(), w.bus, request.ProjectionRebuild(Projection), request.Rebuild{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, w.dump("after")); diff != "" {
			t.Errorf("dump after the rebuild (-before +after):\n%s", diff)
		}
		// What mirrors the file was replaced with it, and the leader stayed.
		w.mustUse(alice, 30)
		if got, want := s.enqueueAll(10, alice, 1, 35), 5; got != want {
			t.Errorf("accepted after the rebuild: got %d, want %d", got, want)
		}
	})
}

func (w *world) dump(name string) string {
	w.t.Helper()
	file := filepath.Join(w.dir, name)
	if _, err := bus.Call[request.Dumped](w.t.Context(), w.bus, request.ProjectionDump(Projection), request.Dump{File: file}); err != nil {
		w.t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(content)
}
