package quota

import (
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

// A message is counted the first time, and every other time is known as a repeat, whatever the order of the ids.
func TestMessages_Note(t *testing.T) {
	db, err := bolt.Open(filepath.Join(t.TempDir(), "use.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rapid.Check(t, func(t *rapid.T) {
		tx, err := db.Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		type message struct {
			account streams.AccountID
			id      streams.MessageID
		}
		noted := map[message]bool{}
		// Few seconds, instances and sequences, so that ids come again and stand beside each other.
		ids := rapid.Custom(func(t *rapid.T) streams.MessageID {
			ms := rapid.SampledFrom([]uint64{0, 1, 2, 1022, 1023, 1024, 1025, 1 << 40}).Draw(t, "ms")
			return streams.MessageID(ms<<22 | rapid.Uint64Range(0, 1).Draw(t, "instance")<<12 | rapid.Uint64Range(0, 6).Draw(t, "sequence"))
		})
		for range rapid.IntRange(1, 200).Draw(t, "messages") {
			m := message{streams.AccountID(rapid.Uint64Range(1, 2).Draw(t, "account")), ids.Draw(t, "id")}
			again, err := messagesOf(0, "2026-11").note(tx, m.account, m.id)
			if err != nil || again != noted[m] {
				t.Fatalf("message %v: got again %v, %v, want %v", m, again, err, noted[m])
			}
			noted[m] = true
		}
	})
}

// Ids in a row take one run, up to as many as a run can count, and so do those between two.
func TestAddToRuns_Join(t *testing.T) {
	var runs []byte
	for _, tick := range []uint32{5, 7, 9, 6, 8, 4, 10} {
		runs, _ = addToRuns(runs, tick)
	}
	if len(runs) != runBytes || binary.BigEndian.Uint32(runs) != 4 || binary.BigEndian.Uint16(runs[4:]) != 7 {
		t.Errorf("got %v, want one run of 7 from 4", runs)
	}
	runs = nil
	for tick := range uint32(maxRun + 2) {
		runs, _ = addToRuns(runs, tick)
	}
	if len(runs) != 2*runBytes {
		t.Errorf("got %d bytes, want two runs", len(runs))
	}
	for _, tick := range []uint32{0, maxRun - 1, maxRun, maxRun + 1} {
		if _, again := addToRuns(runs, tick); !again {
			t.Errorf("%d is not known", tick)
		}
	}
}

// A message that is stored twice is counted once, and takes one place of its grant; a rebuild says the same, and so does
// the next leader.
func TestMessagesCountOnce(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		i := w.start("a")
		w.await("a leader", w.granting)
		s := w.startSender(1)
		given, err := s.reserve(alice, 3, 10)
		if err != nil {
			t.Fatal(err)
		}
		m := w.message(alice, given.Month, given.ID)
		for i := range 2 {
			time.Sleep(time.Duration(i) * 36 * time.Second) // by then the engine has forgotten the id
			if _, err := w.bus.JS.PublishMsg(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		i.folded()
		if stored := w.stored(alice); stored != 2 {
			t.Fatalf("got %d stored, want the message twice", stored)
		}
		w.mustUse(alice, 3) // it, and two that may come
		if diff, err := i.quota.file.Verify(t.Context()); err != nil || diff != "" {
			t.Errorf("a rebuild: %v %s", err, diff)
		}
		i.stop()
		w.start("b")
		w.await("the next leader", w.granting)
		w.mustUse(alice, 3)
	})
}
