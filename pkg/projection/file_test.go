package projection_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// How a closed file is opened again: kept, or rebuilt.
func TestOpen(t *testing.T) {
	keep := func(*testing.T, string) {}
	tests := []struct {
		name    string
		change  func(t *testing.T, path string)
		then    tally
		rebuilt bool
	}{
		{"same", keep, tally{}, false},
		{"other schema", keep, tally{schema: 1}, true},
		{"other subjects", keep, tally{subjects: []string{"b"}}, true},
		{"missing", func(t *testing.T, path string) { must(t, os.Remove(path)) }, tally{}, true},
		{"garbage", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("garbage ", 1<<14)), 0o600))
		}, tally{}, true},
		{"few bytes", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte("garbage"), 0o600))
		}, tally{}, true},
		{"empty", func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) }, tally{}, true},
		{"cut to its first pages", func(t *testing.T, path string) {
			must(t, os.Truncate(path, int64(3*os.Getpagesize())))
		}, tally{}, true},
		{"cut by a page", func(t *testing.T, path string) {
			info, err := os.Stat(path)
			must(t, err)
			must(t, os.Truncate(path, info.Size()-int64(os.Getpagesize())))
		}, tally{}, true},
		{"pages overwritten", func(t *testing.T, path string) {
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			_, err = file.WriteAt([]byte(strings.Repeat("\xff", 64<<10)), int64(2*os.Getpagesize()))
			must(t, err)
			must(t, file.Close())
		}, tally{}, true},
		{"a flipped bit in a value", func(t *testing.T, path string) {
			left, err := os.ReadFile(path)
			must(t, err)
			// Older versions of the page are in the file too.
			left[bytes.LastIndex(left, eventKey(payments, 150))+len(eventKey(payments, 150))] ^= 1
			must(t, os.WriteFile(path, left, 0o600))
		}, tally{}, true},
		{"checksum of another file", func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".sum", []byte("crc32c 00000000 of 0 bytes\n"), 0o600))
		}, tally{}, true},
		{"no checksum", func(t *testing.T, path string) { must(t, os.Remove(path+".sum")) }, tally{}, false},
		{"no checksum, damaged", func(t *testing.T, path string) {
			must(t, os.Remove(path+".sum"))
			left, err := os.ReadFile(path)
			must(t, err)
			for at := range len(left) / os.Getpagesize() {
				if p := left[at*os.Getpagesize():][:os.Getpagesize()]; bytes.Contains(p, eventKey(payments, 150)) {
					clear(p)
				}
			}
			must(t, os.WriteFile(path, left, 0o600))
		}, tally{}, true},
		{"open when the machine went down", func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".open", []byte("another boot\n"), 0o600))
		}, tally{}, true},
		{"open when the process was killed", func(t *testing.T, path string) {
			boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
			if err != nil {
				t.Skip("the system names no boot")
			}
			must(t, os.WriteFile(path+".open", boot, 0o600))
		}, tally{}, false},
		{"killed in a rebuild", func(t *testing.T, path string) {
			for _, half := range []string{".new", ".snapshot", ".verify"} {
				must(t, os.WriteFile(path+half, []byte("half"), 0o600))
			}
		}, tally{}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := bustest.New(t)
			makeStreams(t, b)
			publishMany(t, b, 300)
			path := filepath.Join(t.TempDir(), "tally.db")
			f := start(t, path, b, tally{}, projection.Options{})
			f.catchUp(b)
			f.stop()
			test.change(t, path)

			cursorAtOpen := -1
			f = start(t, path, b, test.then, projection.Options{Replaced: func(tx *bolt.Tx) error {
				cursorAtOpen = 0
				if b := tx.Bucket([]byte("events")); b != nil {
					cursorAtOpen = b.Stats().KeyN
				}
				return nil
			}})
			if want := map[bool]int{true: 0, false: 600}[test.rebuilt]; cursorAtOpen != want {
				t.Errorf("opened with %d events, want %d", cursorAtOpen, want)
			}
			ready(t, f)
			if got, want := dump(t, f.File), foldAnew(t, b, test.then); got != want {
				t.Error("dump differs from a fold in one go")
			}
			f.stop()
			want := []string{filepath.Base(path), filepath.Base(path) + ".sum"}
			if diff := cmp.Diff(want, namesBeside(t, path)); diff != "" {
				t.Errorf("files after a clean close (-want +got):\n%s", diff)
			}
		})
	}
}

// A killed process leaves the file as it was at the last commit, without the
// list of free pages.
func TestOpenAfterKill(t *testing.T) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Skip("the system names no boot")
	}
	b := bustest.New(t)
	makeStreams(t, b)
	publishMany(t, b, 300)
	path := filepath.Join(t.TempDir(), "tally.db")
	f := start(t, path, b, tally{}, projection.Options{})
	f.catchUp(b)
	left, err := os.ReadFile(path)
	must(t, err)
	f.stop()
	page := os.Getpagesize()
	for _, test := range []struct {
		name    string
		damage  func(left []byte) []byte
		rebuilt bool
	}{
		{"whole", func(left []byte) []byte { return left }, false},
		{"cut", func(left []byte) []byte { return left[:len(left)-page] }, true},
		{"cut to its first pages", func(left []byte) []byte { return left[:3*page] }, true},
		{"pages overwritten", func(left []byte) []byte {
			copy(left[2*page:], bytes.Repeat([]byte{0xff}, len(left)-2*page))
			return left
		}, true},
		{"pages emptied", func(left []byte) []byte {
			clear(left[2*page:])
			return left
		}, true},
		{"one page emptied", func(left []byte) []byte {
			// Older versions of the page are in the file too.
			for at := range len(left) / page {
				if p := left[at*page:][:page]; bytes.Contains(p, eventKey(payments, 150)) {
					clear(p)
				}
			}
			return left
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			must(t, os.WriteFile(path, test.damage(bytes.Clone(left)), 0o600))
			must(t, os.WriteFile(path+".open", boot, 0o600))
			f, err := projection.Open(path, b, tally{}, projection.Options{})
			must(t, err)
			if got, want := f.Cursor(orders), map[bool]uint64{true: 0, false: 300}[test.rebuilt]; got != want {
				t.Errorf("opened at %d, want %d", got, want)
			}
			must(t, f.Close())
		})
	}
}

func TestFilesArePrivateAndMarked(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	path := filepath.Join(t.TempDir(), "tally.db")
	start(t, path, b, tally{}, projection.Options{})
	if diff := cmp.Diff([]string{"tally.db", "tally.db.open"}, namesBeside(t, path)); diff != "" {
		t.Errorf("files while open (-want +got):\n%s", diff)
	}
	for _, name := range namesBeside(t, path) {
		info, err := os.Stat(filepath.Join(filepath.Dir(path), name))
		must(t, err)
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s has mode %o, want 600", name, got)
		}
	}
}

// A file that somebody else holds is left alone. The wait for its lock is
// simulated time.
func TestOpenElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.New(t)
		makeStreams(t, b)
		path := filepath.Join(t.TempDir(), "tally.db")
		first := start(t, path, b, tally{}, projection.Options{})
		_, err := projection.Open(path, b, tally{schema: 2}, projection.Options{})
		if err == nil || !strings.Contains(err.Error(), "another process has it open") {
			t.Fatalf("opened twice: %v", err)
		}
		first.await(orders, publish(t, b, "ORDERS.a", "1"))
	})
}

func TestOpenRefused(t *testing.T) {
	b := bustest.New(t)
	dir := t.TempDir()
	if _, err := projection.Open(filepath.Join(dir, "no", "tally.db"), b, tally{}, projection.Options{}); err == nil {
		t.Error("opened in a directory that is not there")
	}
	if _, err := projection.Open(filepath.Join(dir, "none.db"), b, sources{}, projection.Options{}); err == nil {
		t.Error("opened without a stream to read")
	}
	twice := sources{{Stream: orders}, {Stream: orders}}
	if _, err := projection.Open(filepath.Join(dir, "twice.db"), b, twice, projection.Options{}); err == nil {
		t.Error("opened with a stream named twice")
	}
}

func TestClosed(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
	f.stop()
	if err := f.View(func(*bolt.Tx) error { return nil }); err == nil {
		t.Error("View of a closed file")
	}
	if err := f.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

// sources is a projection that folds nothing.
type sources []projection.Source

func (sources) Schema() int                            { return 1 }
func (s sources) Sources() []projection.Source         { return s }
func (sources) Apply(*bolt.Tx, projection.Event) error { return nil }

func namesBeside(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
