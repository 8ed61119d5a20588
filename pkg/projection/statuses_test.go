package projection

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// What each of the engine's words about a pull means.
func TestStatuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := beginSession(t)
		for name, test := range map[string]struct {
			subject, code, text, last string
			came                      int
			fails, open               bool
		}{
			"heartbeat":                 {code: "100", last: "0", open: true},
			"heartbeat without number":  {code: "100", open: true},
			"heartbeat with none":       {code: "100", last: "x", open: true},
			"heartbeat with a number":   {code: "100", last: "1", fails: true, open: true},
			"no messages":               {code: "404", text: "No Messages"},
			"time is over":              {code: "408", text: "Request Timeout"},
			"complete":                  {code: "409", text: "Batch Completed"},
			"complete, by another code": {code: "400", text: "Batch Completed", fails: true, open: true},
			"bytes used up":             {code: "409", text: "Message Size Exceeds MaxBytes", came: 1},
			"too large by itself":       {code: "409", text: "Message Size Exceeds MaxBytes", fails: true, open: true},
			"deleted":                   {code: "409", text: "Consumer Deleted", came: 1, fails: true, open: true},
			"nobody":                    {code: "503", fails: true, open: true},
			"of an earlier pull":        {subject: "other", code: "409", text: "Consumer Deleted", open: true},
		} {
			s.reply, s.open, s.came, s.suspect = "reply", true, test.came, false
			m := nats.NewMsg("reply")
			if test.subject != "" {
				m.Subject = test.subject
			}
			m.Header.Set("Status", test.code)
			m.Header.Set("Description", test.text)
			if test.last != "" {
				m.Header.Set("Nats-Last-Consumer", test.last)
			}
			if err := s.takeStatus(t.Context(), m); (err != nil) != test.fails || s.open != test.open {
				t.Errorf("%s: got %v, open %t", name, err, s.open)
			}
		}
	})
}

// Events that wait and do not come are looked for twice: then the consumer is stuck.
func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := beginSession(t)
		look := func(fails, suspect bool) {
			t.Helper()
			if err := s.look(t.Context()); (err != nil) != fails || s.suspect != suspect {
				t.Errorf("got %v, suspect %t", err, s.suspect)
			}
		}
		look(false, false)
		if s.done || !s.reader.caughtUp {
			t.Errorf("nothing waits: got done %t, caught up %t", s.done, s.reader.caughtUp)
		}
		if _, err := b.JS.Publish(t.Context(), "ORDERS.a", nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the engine's count lags behind what is stored
		look(false, true)
		look(true, true)
		if err := s.pull(); err != nil {
			t.Fatal(err)
		}
		if err := s.receive(t.Context(), <-s.messages); err != nil || s.suspect {
			t.Errorf("one came: got %v, suspect %t", err, s.suspect)
		}
		s.suspect = true
		look(false, false)
		s.reader.until = 5
		look(false, false)
		if !s.done {
			t.Error("nothing waits of what was wanted, and more is read")
		}
	})
}

// A pull ends with its last event, and what has come is taken at once.
func TestPullIsTakenWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, s := beginSession(t) // pulls of ten
		for range 10 {
			if _, err := b.JS.Publish(t.Context(), "ORDERS.a", []byte("data")); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.pull(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := s.receive(t.Context(), <-s.messages); err != nil {
			t.Fatal(err)
		}
		got := s.reader.queue.take(nil) // first the word that nothing was there
		if s.open || s.left != 0 || len(got) != 11 || s.reader.came != 10 {
			t.Errorf("got %d events, %d left, open %t", len(got), s.left, s.open)
		}
		if kept := s.items[:1][0]; len(s.items) != 0 || kept.Data != nil {
			t.Errorf("what was queued is kept: %q", kept.Data)
		}
		b.Conn.Close()
		if err := s.run(t.Context()); !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("over a closed connection: got %v", err)
		}
	})
}

// What cannot be asked, begun or opened is an error, and no empty answer.
func TestFailures(t *testing.T) {
	b := bustest.New(t)
	r := newReader(b, zap.NewNop(), Source{Stream: "A"}, newQueue(), 10, cursor{}, 0)
	if n, err := r.lag(t.Context()); err == nil || n != 0 {
		t.Errorf("the lag of what has not begun: got %d, %v", n, err)
	}
	s, err := openStore(filepath.Join(t.TempDir(), "file.db"), false, true)
	if err != nil {
		t.Fatal(err)
	}
	s.retire()
	batch := []item{{reader: r, Event: Event{Stream: "A", Seq: 1}}}
	if got, err := apply(s, sources{{Stream: "A"}}, batch, cursors{}, nil); err == nil || len(got) != 0 {
		t.Errorf("applied to a closed file: got %d, %v", len(got), err)
	}
	// A file that cannot be reached is not a damaged one: that would be deleted.
	if _, err := openStore(filepath.Join(t.TempDir(), "none", "file.db"), false, true); err == nil || errors.Is(err, errDamaged) {
		t.Errorf("in no folder: got %v", err)
	}
	q := newQueue()
	q.put([]item{{Event: Event{Stream: "A", Seq: 1}}})
	if got := q.newest("A"); got != 1 {
		t.Errorf("the first event of all came: got %d", got)
	}
}

// A rebuild and a verification fold as many events as there are, or say why they do not.
func TestReplay(t *testing.T) {
	b := bustest.New(t)
	if _, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "A", Subjects: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := b.JS.Publish(t.Context(), "a", nil); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Open(filepath.Join(t.TempDir(), "f.db"), b, sources{{Stream: "A"}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := f.Wait(t.Context(), "A", 5); err != nil {
		t.Fatal(err)
	}
	goal, err := f.liveCursors()
	if err != nil || goal["A"].seq != 5 {
		t.Fatalf("got %+v, %v", goal, err)
	}
	s, err := f.openNew(f.newPath())
	if err != nil {
		t.Fatal(err)
	}
	at := cursors{}
	for _, want := range []int{5, 0} {
		if n, err := f.replay(t.Context(), s, at, goal); err != nil || n != want || at["A"] != goal["A"] {
			t.Errorf("got %d events to %+v, %v, want %d", n, at, err, want)
		}
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		written, err := readCursors(tx, f.sources)
		if written["A"] != goal["A"] {
			t.Errorf("wrote %+v, want %+v", written, goal)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	s.retire()
	for _, path := range []string{f.newPath(), f.verifyPath(), f.snapshotPath()} {
		_ = os.Remove(path)
		if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Rebuild(t.Context()); err == nil {
		t.Error("a rebuild that has no place: got no error")
	}
	if said, err := f.Verify(t.Context()); err == nil || said != "" {
		t.Errorf("a verification that has no copy: got %q, %v", said, err)
	}
	if err := os.RemoveAll(f.snapshotPath()); err != nil {
		t.Fatal(err)
	}
	if said, err := f.Verify(t.Context()); err == nil || said != "" {
		t.Errorf("a verification that has no place: got %q, %v", said, err)
	}
}
