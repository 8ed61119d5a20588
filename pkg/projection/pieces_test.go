package projection

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/pkg/testkit/testnote"
)

// file makes a bbolt file with what fill writes.
func file(t *testing.T, fill func(tx *bolt.Tx)) *bolt.DB {
	t.Helper()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "file.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := db.Update(func(tx *bolt.Tx) error { fill(tx); return nil }); err != nil {
		t.Fatal(err)
	}
	return db
}

func in(t *testing.T, b interface {
	CreateBucketIfNotExists([]byte) (*bolt.Bucket, error)
}, name string) *bolt.Bucket {
	t.Helper()
	bucket, err := b.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

func put(t *testing.T, b *bolt.Bucket, key, value string) {
	t.Helper()
	if err := b.Put([]byte(key), []byte(value)); err != nil {
		t.Fatal(err)
	}
}

// Every kind of difference between two files is found, and the first one is told of.
func TestCompare(t *testing.T) {
	base := func(tx *bolt.Tx) {
		put(t, in(t, tx, "b"), "k", "v")
		put(t, in(t, in(t, tx, "b"), "nested"), "deep", "v")
		put(t, in(t, tx, "c"), "k", "v")
	}
	for name, test := range map[string]struct {
		change  func(tx *bolt.Tx)
		live    string // what is said when the live file is the changed one
		rebuilt string // and when the other one is
	}{
		"nothing":    {func(*bolt.Tx) {}, "", ""},
		"own books":  {func(tx *bolt.Tx) { put(t, in(t, tx, string(booksName)), "k", "v") }, "", ""},
		"key":        {func(tx *bolt.Tx) { put(t, in(t, tx, "b"), "j", "v") }, "only the live file has: b 6a 76", "only the rebuilt file has: b 6a 76"},
		"last key":   {func(tx *bolt.Tx) { put(t, in(t, tx, "z"), "k", "v") }, "only the live file has: z 6b 76", "only the rebuilt file has: z 6b 76"},
		"value":      {func(tx *bolt.Tx) { put(t, in(t, tx, "c"), "k", "w") }, "the live file has: c 6b 77; the rebuilt one: c 6b 76", "the live file has: c 6b 76; the rebuilt one: c 6b 77"},
		"nested":     {func(tx *bolt.Tx) { put(t, in(t, in(t, tx, "b"), "nested"), "deep", "w") }, "the live file has: b/nested 64656570 77; the rebuilt one: b/nested 64656570 76", "the live file has: b/nested 64656570 76; the rebuilt one: b/nested 64656570 77"},
		"a sequence": {func(tx *bolt.Tx) { _ = in(t, tx, "c").SetSequence(7) }, "only the live file has: c #7", "only the rebuilt file has: c #7"},
		"empty key":  {func(tx *bolt.Tx) { put(t, in(t, tx, "b"), "k", "") }, "the live file has: b 6b ; the rebuilt one: b 6b 76", "the live file has: b 6b 76; the rebuilt one: b 6b "},
	} {
		a := file(t, func(tx *bolt.Tx) { base(tx); test.change(tx) })
		b := file(t, base)
		difference := func(live, rebuilt *bolt.DB) (difference string) {
			_ = live.View(func(l *bolt.Tx) error {
				return rebuilt.View(func(n *bolt.Tx) error {
					difference = compare(l, n, renderHex)
					return nil
				})
			})
			return difference
		}
		if got := difference(a, b); got != test.live {
			t.Errorf("%s, live: got %q, want %q", name, got, test.live)
		}
		if got := difference(b, a); got != test.rebuilt {
			t.Errorf("%s, rebuilt: got %q, want %q", name, got, test.rebuilt)
		}
	}
	one, two := file(t, func(tx *bolt.Tx) { _ = in(t, tx, "c").SetSequence(7) }), file(t, func(tx *bolt.Tx) { _ = in(t, tx, "c").SetSequence(8) })
	_ = one.View(func(l *bolt.Tx) error {
		return two.View(func(n *bolt.Tx) error {
			if got, want := compare(l, n, renderHex), "the live file has: c #7; the rebuilt one: c #8"; got != want {
				t.Errorf("sequences: got %q, want %q", got, want)
			}
			return nil
		})
	})
}

func TestBucketText(t *testing.T) {
	for want, path := range map[string][]string{
		"a/b": {"a", "b"}, "a": {"a"}, `"a/b"/c`: {"a/b", "c"}, `"a b"`: {"a b"}, `"a#"`: {"a#"}, `"\x00"`: {"\x00"}, `"\""`: {`"`},
	} {
		var names [][]byte
		for _, name := range path {
			names = append(names, []byte(name))
		}
		if got := bucketText(names); got != want {
			t.Errorf("%q: got %s, want %s", path, got, want)
		}
	}
}

func TestCursorBytes(t *testing.T) {
	want := cursor{1, -2, 3}
	if got, err := decodeCursor(want.bytes()); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, n := range []int{0, 23, 25} {
		if _, err := decodeCursor(make([]byte, n)); err == nil {
			t.Errorf("%d bytes: got no error", n)
		}
	}
	db := file(t, func(tx *bolt.Tx) {
		in(t, tx, string(booksName))
		if err := writeCursor(tx, "A", want); err != nil {
			t.Error(err)
		}
		put(t, tx.Bucket(booksName), "cursor/B", "short")
	})
	_ = db.View(func(tx *bolt.Tx) error {
		got, err := readCursors(tx, []Source{{Stream: "A"}, {Stream: "C"}})
		if err != nil || len(got) != 1 || got["A"] != want {
			t.Errorf("got %+v, %v", got, err)
		}
		if _, err := readCursors(tx, []Source{{Stream: "A"}, {Stream: "B"}}); err == nil {
			t.Error("a cursor that is too short: got no error")
		}
		if err := writeCursor(tx, "A", want); err == nil {
			t.Error("a cursor that cannot be written: got no error")
		}
		return nil
	})
}

type sources []Source

func (s sources) Schema() int                    { return len(s) }
func (s sources) Sources() []Source              { return s }
func (sources) Apply(tx *bolt.Tx, _ Event) error { return nil }

// The order in which streams and subjects are named is none of the content's.
func TestSchemaOf(t *testing.T) {
	one := schemaOf(sources{{"A", []string{"a", "b"}}, {"B", nil}})
	if !bytes.Equal(one, schemaOf(sources{{"B", nil}, {"A", []string{"b", "a"}}})) {
		t.Error("the order makes a difference")
	}
	for _, other := range []sources{{{"A", []string{"a"}}, {"B", nil}}, {{"A", []string{"a", "b"}}, {"C", nil}}, {{"A", []string{"a", "b"}}}} {
		if bytes.Equal(one, schemaOf(other)) {
			t.Errorf("%+v has the same schema", other)
		}
	}
}

func TestHasSchema(t *testing.T) {
	for name, test := range map[string]struct {
		fill func(tx *bolt.Tx)
		want bool
	}{
		"empty":    {func(*bolt.Tx) {}, true},
		"same":     {func(tx *bolt.Tx) { put(t, in(t, tx, string(booksName)), string(schemaKey), "s") }, true},
		"other":    {func(tx *bolt.Tx) { put(t, in(t, tx, string(booksName)), string(schemaKey), "o") }, false},
		"no books": {func(tx *bolt.Tx) { in(t, tx, "b") }, false},
	} {
		s := &store{db: file(t, test.fill)}
		if got, err := s.hasSchema([]byte("s")); err != nil || got != test.want {
			t.Errorf("%s: got %t, %v, want %t", name, got, err, test.want)
		}
	}
}

func TestSums(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file.db")
	want := func(what string, known, fits bool) {
		t.Helper()
		if k, f, err := checkSum(path); err != nil || k != known || f != fits {
			t.Errorf("%s: got known %t, fits %t, %v, want %t, %t", what, k, f, err, known, fits)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want("nothing there", false, false)
	write("content")
	want("no checksum", false, false)
	if err := writeSum(path); err != nil {
		t.Fatal(err)
	}
	want("closed", true, true)
	write("Content")
	want("a bit flipped", true, false)
	write("content")
	want("as it was", true, true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want("the file is gone", true, true)
	if err := writeSum(path); err == nil {
		t.Error("a checksum of no file: got no error")
	}
	for range 2 { // none is left, and none to remove
		if err := dropSum(path); err != nil {
			t.Error(err)
		}
		want("dropped", false, false)
	}
	// What cannot be read or removed is no file without a checksum.
	if err := os.MkdirAll(filepath.Join(sumPath(path), "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := checkSum(path); err == nil {
		t.Error("a checksum that cannot be read: got no error")
	}
	if err := dropSum(path); err == nil {
		t.Error("a checksum that cannot be removed: got no error")
	}
	if err := writeSynced(filepath.Join(path, "x", "y"), "z"); err == nil {
		t.Error("a file in no folder: got no error")
	}
}

func TestMarks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file.db")
	if mark, err := readMark(path); err != nil || mark != "" {
		t.Errorf("none: got %q, %v", mark, err)
	}
	if err := markOpen(path, "boot"); err != nil {
		t.Fatal(err)
	}
	if mark, err := readMark(path); err != nil || mark != "boot" {
		t.Errorf("open: got %q, %v", mark, err)
	}
	if err := markClosed(path); err != nil {
		t.Fatal(err)
	}
	if mark, err := readMark(path); err != nil || mark != "" {
		t.Errorf("closed: got %q, %v", mark, err)
	}
	if err := markClosed(path); err == nil {
		t.Error("closed twice: got no error")
	}
	away := filepath.Join(filepath.Dir(path), "none", "file.db")
	if markOpen(away, "boot") == nil || markClosed(away) == nil {
		t.Error("in a folder that is not there: got no error")
	}
	if err := os.Mkdir(markPath(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := readMark(path); err == nil {
		t.Error("a mark that cannot be read: got no error")
	}
	if f, err := Open(path, nil, sources{{Stream: "A"}}, Options{}); err == nil {
		t.Errorf("a file whose mark cannot be read was opened: %v", f.Close())
	}
}

// The mark stands while the file is open, and the checksum while it is closed.
func TestOpenAndClosedAreTold(t *testing.T) {
	b := bustest.New(t)
	path := filepath.Join(t.TempDir(), "file.db")
	there := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	for range 2 {
		f, err := Open(path, b, sources{{Stream: "A"}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if f.boot == "" {
			testnote.Skip(t, "this system does not name its boots")
		}
		if !there(markPath(path)) || there(sumPath(path)) {
			t.Errorf("open: got the mark %t and the checksum %t", there(markPath(path)), there(sumPath(path)))
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if there(markPath(path)) || !there(sumPath(path)) {
			t.Errorf("closed: got the mark %t and the checksum %t", there(markPath(path)), there(sumPath(path)))
		}
	}
	// What cannot be put away or written beside the file keeps it from being opened.
	for _, beside := range []string{path + ".new", path + ".snapshot", path + ".verify", sumPath(path), markPath(path)} {
		_ = os.Remove(beside)
		if err := os.MkdirAll(filepath.Join(beside, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if f, err := Open(path, b, sources{{Stream: "A"}}, Options{}); err == nil {
			t.Errorf("opened beside a folder %s: %v", beside, f.Close())
		}
		if err := os.RemoveAll(beside); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Open(path, b, sources{{Stream: "A"}}, Options{Replaced: func(*bolt.Tx) error { return errLost }})
	if !errors.Is(err, errLost) {
		t.Errorf("what cannot be loaded was opened: %v, %v", f, err)
	}
}

func TestOfDisk(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {errors.New("another"), false}, {errLost, false},
		{unwritten(errors.New("x")), true}, {fmt.Errorf("x: %w", syscall.ENOSPC), true}, {&os.PathError{Err: syscall.EROFS}, true},
	} {
		if got := ofDisk(test.err); got != test.want {
			t.Errorf("%v: got %t, want %t", test.err, got, test.want)
		}
	}
}

func TestOptionDefaults(t *testing.T) {
	d := Options{}.withDefaults()
	if d.BatchMax != 1024 || d.Committed == nil || d.Replaced == nil || d.Render == nil || d.Log == nil {
		t.Errorf("got %+v", d)
	}
	d.Committed(nil)
	if err := d.Replaced(nil); err != nil {
		t.Error(err)
	}
	if k, v := d.Render(nil, []byte("k"), []byte("v")); k != "6b" || v != "76" {
		t.Errorf("got %s %s", k, v)
	}
	called := 0
	own := Options{
		BatchMax: 1, Log: zap.NewExample(), Committed: func([]Event) { called++ }, Replaced: func(*bolt.Tx) error { called++; return nil },
		Render: func(_, _, _ []byte) (string, string) { called++; return "", "" },
	}
	kept := own.withDefaults()
	kept.Committed(nil)
	_ = kept.Replaced(nil)
	kept.Render(nil, nil, nil)
	if called != 3 || kept.BatchMax != 1 || kept.Log != own.Log {
		t.Errorf("got %d of 3 called, and %+v", called, kept)
	}
}

func TestQueue(t *testing.T) {
	q := newQueue()
	q.put(nil)
	if len(q.arrived) != 0 {
		t.Error("nothing has arrived, and there is something to do")
	}
	event := func(stream string, seq uint64) item { return item{Event: Event{Stream: stream, Seq: seq}} }
	q.put([]item{event("A", 1), event("A", 2)})
	q.put([]item{event("B", 7)})
	q.put([]item{{caughtUp: true}})
	if len(q.arrived) != 1 || q.newest("A") != 2 || q.newest("B") != 7 || q.newest("C") != 0 {
		t.Errorf("got %d, %d, %d, %d", len(q.arrived), q.newest("A"), q.newest("B"), q.newest("C"))
	}
	spare := make([]item, 3, 50)
	spare[0].Seq = 9
	if got := q.take(spare); len(got) != 4 || got[3].caughtUp != true {
		t.Errorf("took %d", len(got))
	}
	if spare[0].Seq != 0 {
		t.Error("what was folded is kept in memory")
	}
	if got := cap(q.items); got != 50 {
		t.Errorf("got room for %d, want what there was", got)
	}
	// The memory of a burst is given back: more than 64, and more than eight times what came.
	for _, test := range []struct{ room, came, want int }{{64, 1, 64}, {65, 1, 0}, {80, 10, 80}, {81, 10, 0}} {
		q := newQueue()
		q.put(make([]item, test.came))
		q.take(make([]item, test.room))
		if got := cap(q.items); got != test.want {
			t.Errorf("room for %d after %d came: kept %d, want %d", test.room, test.came, got, test.want)
		}
	}
}

func TestPosition(t *testing.T) {
	p, began := &position{}, make(chan struct{}, 1)
	p.wakes(began)
	done := func(w waiter) bool {
		select {
		case <-w.done:
			return true
		default:
			return false
		}
	}
	p.advance(5)
	if w := p.await(5); w.done != nil || len(began) != 0 {
		t.Error("waits for what is applied")
	}
	nine, seven, nineToo, six := p.await(9), p.await(7), p.await(9), p.await(6)
	if len(began) != 1 {
		t.Error("nobody was told that somebody waits")
	}
	for seq, want := range map[uint64]bool{5: false, 6: true, 7: true, 100: true} {
		if got := p.awaits(seq); got != want {
			t.Errorf("awaits %d: got %t, want %t", seq, got, want)
		}
	}
	p.advance(7)
	if !done(six) || !done(seven) || done(nine) || done(nineToo) {
		t.Error("at 7, not those who wait for up to 7 go on")
	}
	p.forget(nine)
	p.forget(nine) // it is gone
	p.advance(8)
	if done(nine) || done(nineToo) {
		t.Error("at 8, those go on who wait for 9")
	}
	p.advance(9)
	if done(nine) || !done(nineToo) || p.awaits(100) {
		t.Error("at 9, not who waits for it goes on")
	}
	p.reset()
	if w := p.await(1); w.done == nil {
		t.Error("after a reset, something is applied")
	}
}

// Inside the process, an engine that does not answer is busy; over a network, its node may have gone.
func TestPaces(t *testing.T) {
	inside, across := bustest.New(t), bus.Bus{Conn: &nats.Conn{}}
	if got, want := paceOf(inside), (pace{pull: 2 * time.Minute}); got != want {
		t.Errorf("inside: got %+v, want %+v", got, want)
	}
	if got, want := paceOf(&across), (pace{pull: 30 * time.Second, heartbeat: time.Second}); got != want {
		t.Errorf("across: got %+v, want %+v", got, want)
	}
	if p := paceOf(inside); p.silence() != 130*time.Second || p.answer() != setupTimeout {
		t.Errorf("inside: got %v, %v", p.silence(), p.answer())
	}
	if p := paceOf(&across); p.silence() != 2*time.Second || p.answer() != 2*time.Second {
		t.Errorf("across: got %v, %v", p.silence(), p.answer())
	}
	for late, want := range map[int]time.Duration{0: time.Second, 6: time.Second, 7: 2 * time.Second, 8: 4 * time.Second, 11: 30 * time.Second, 100: 30 * time.Second} {
		if got := (&reader{bus: &across, late: late}).setup(); got != want {
			t.Errorf("late %d times: got %v, want %v", late, got, want)
		}
		if got := (&reader{bus: inside, late: late}).setup(); got != setupTimeout {
			t.Errorf("inside, late %d times: got %v", late, got)
		}
	}
}

// What is read and not folded yet has bounds, by events and by bytes.
func TestBacklog(t *testing.T) {
	r := newReader(&bus.Bus{}, zap.NewNop(), Source{Stream: "A"}, newQueue(), 10, cursor{}, 0)
	other := newReader(&bus.Bus{}, zap.NewNop(), Source{Stream: "B"}, newQueue(), 10, cursor{}, 0)
	items := func(r *reader, n, size int) []item {
		all := make([]item, n)
		for i := range all {
			all[i] = item{reader: r, size: size}
		}
		return all
	}
	first := items(r, 19, 1)
	r.enqueue(first)
	if !r.hasRoom() {
		t.Error("no room below twice a pull")
	}
	r.enqueue(items(r, 1, 1))
	if r.hasRoom() {
		t.Error("room at twice a pull")
	}
	batch := append(append(items(r, 2, 1), items(other, 3, 5)...), items(r, 1, 1)...)
	other.enqueue(items(other, 3, 5))
	release(batch)
	if got := r.backlog.events.Load(); got != 17 || r.backlog.bytes.Load() != 17 || other.backlog.events.Load() != 0 || other.backlog.bytes.Load() != 0 {
		t.Errorf("got %d left of 20 after 3, and %d of the other's", got, other.backlog.events.Load())
	}
	if len(r.room) != 1 || !r.hasRoom() {
		t.Error("nobody was told that there is room")
	}
	large := newReader(&bus.Bus{}, zap.NewNop(), Source{Stream: "A"}, newQueue(), 10, cursor{}, 0)
	large.enqueue(items(large, 1, backlogBytes-1))
	if !large.hasRoom() {
		t.Error("no room below the bytes")
	}
	large.enqueue(items(large, 1, 1))
	if large.hasRoom() {
		t.Error("room at the bytes")
	}
	large.catchUp()
	large.catchUp()
	if got := large.queue.take(nil); len(got) != 3 || !got[2].caughtUp || got[1].caughtUp {
		t.Errorf("got %d, want the word that it has caught up once", len(got))
	}
}

// A file that cannot be written says so, to those who wait too, and only until it can.
func TestTrouble(t *testing.T) {
	f := &File{o: Options{}.withDefaults(), trouble: trouble{since: make(chan struct{})}, between: make(chan func(context.Context))}
	since := f.trouble.since
	if f.Err() != nil {
		t.Errorf("at first: got %v", f.Err())
	}
	f.inTrouble(nil)
	f.inTrouble(syscall.ENOSPC)
	f.inTrouble(syscall.EROFS)
	<-since
	if got := fault.As(f.Err()); got.Kind != fault.Unavailable || got.Code != Unwritten || !errors.Is(f.Err(), syscall.EROFS) {
		t.Errorf("in trouble: got %v", f.Err())
	}
	f.inTrouble(nil)
	select {
	case <-f.trouble.since:
		t.Error("after it, who waits is told that there is trouble")
	default:
	}
	if f.Err() != nil {
		t.Errorf("after it: got %v", f.Err())
	}
	// It is tried again while the disk fails, and what comes between is done.
	tries, worked := 0, false
	go func() { f.between <- func(context.Context) { worked = true } }()
	err := f.insist(t.Context(), func() error {
		if tries++; tries < 3 {
			return unwritten(syscall.ENOSPC)
		}
		return errLost
	})
	if !errors.Is(err, errLost) || tries != 3 || !worked || f.Err() != nil {
		t.Errorf("got %v after %d tries, between: %t, then %v", err, tries, worked, f.Err())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.insist(ctx, func() error { return syscall.ENOSPC }); !errors.Is(err, context.Canceled) {
		t.Errorf("for who has gone: got %v", err)
	}
}

type brokenPipe struct{ room int }

func (b *brokenPipe) Write(p []byte) (int, error) {
	if b.room -= len(p); b.room < 0 {
		return 0, syscall.EPIPE
	}
	return len(p), nil
}

func TestDump(t *testing.T) {
	b := bustest.New(t)
	f, err := Open(filepath.Join(t.TempDir(), "f.db"), b, sources{{Stream: "A"}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = f.live.db.Update(func(tx *bolt.Tx) error {
		bucket := in(t, tx, "b")
		put(t, bucket, "k", strings.Repeat("v", 5000))
		put(t, bucket, "l", "w")
		return bucket.SetSequence(3)
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := f.Dump(&out); err != nil {
		t.Fatal(err)
	}
	want := "b #3\nb 6b " + strings.Repeat("76", 5000) + "\nb 6c 77\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	for _, room := range []int{0, 100, 4096, len(want) - 1} {
		if err := f.Dump(&brokenPipe{room}); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("room for %d bytes: got %v", room, err)
		}
	}
	path := filepath.Join(t.TempDir(), "dump")
	if n, err := f.dumpTo(path); err != nil || n != int64(len(want)) {
		t.Errorf("got %d bytes, %v, want %d", n, err, len(want))
	}
	if n, err := f.dumpTo(path); !fault.Is(err, fault.Invalid) || n != 0 {
		t.Errorf("onto a file that is there: got %d, %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	gone := filepath.Join(t.TempDir(), "dump")
	if _, err := f.dumpTo(gone); !errors.Is(err, errClosed) {
		t.Errorf("of a closed file: got %v", err)
	}
	if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dump that failed is left: %v", err)
	}
	for what, err := range map[string]error{
		"rebuild": f.Rebuild(t.Context()),
		"verify":  func() error { _, err := f.Verify(t.Context()); return err }(),
		"view":    f.View(func(*bolt.Tx) error { return nil }),
		"lag":     func() error { _, err := f.Lag(t.Context()); return err }(),
	} {
		if err == nil {
			t.Errorf("%s of a closed file: got no error", what)
		}
	}
	if got := f.Cursor("none"); got != 0 {
		t.Errorf("the cursor of a stream that is not read: got %d", got)
	}
}

// A store is closed by the last of its readers, and not before.
func TestStoreReaders(t *testing.T) {
	s := &store{db: file(t, func(*bolt.Tx) {}), closed: make(chan struct{})}
	isClosed := func() bool {
		select {
		case <-s.closed:
			return true
		default:
			return false
		}
	}
	s.enter()
	s.enter()
	s.leave()
	s.retire()
	if isClosed() {
		t.Error("closed under a reader")
	}
	s.leave()
	if !isClosed() || s.err != nil {
		t.Errorf("not closed after the last reader: %v", s.err)
	}
	alone := &store{db: file(t, func(*bolt.Tx) {}), closed: make(chan struct{})}
	alone.enter()
	alone.leave()
	alone.retire()
	<-alone.closed
}
