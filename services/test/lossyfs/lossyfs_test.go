//go:build linux

package lossyfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// cuts is how often each test lets the power fail.
const cuts = 10

// mounted gives an empty disk and where it is mounted.
func mounted(t *testing.T, names Names) (*Disk, string) {
	t.Helper()
	d, dir := New(names), t.TempDir()
	if err := d.Mount(dir); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d, dir
}

// cut lets the power fail and come back.
func cut(t *testing.T, d *Disk, dir string, seed uint64) Lost {
	t.Helper()
	d.Cut()
	d.Unplug()
	if err := d.Unmount(); err != nil {
		t.Fatal(err)
	}
	lost := d.Restart(rand.New(rand.NewPCG(seed, 0)))
	if err := d.Mount(dir); err != nil {
		t.Fatal(err)
	}
	return lost
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes at the end of a file, which it makes, with more flags.
func write(t *testing.T, path, text string, flags int, sync bool) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|flags, 0o600)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func syncDir(t *testing.T, path string) {
	t.Helper()
	dir, err := os.Open(path)
	must(t, err)
	must(t, dir.Sync())
	must(t, dir.Close())
}

// What was synced is there after every cut, and what was not is there after some.
func TestDisk_Contents(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(cuts) {
		d, dir := mounted(t, Journaled)
		path := filepath.Join(dir, "a")
		write(t, path, "synced ", 0, true)
		write(t, path, "at once ", os.O_SYNC, false)
		write(t, path, "open", 0, false)
		cut(t, d, dir, seed)
		got, err := os.ReadFile(path)
		must(t, err)
		seen[string(got)] = true
	}
	if len(seen) != 2 || !seen["synced at once "] || !seen["synced at once open"] {
		t.Errorf("got %v, want with and without what was not synced", seen)
	}
}

// A write over many pages is found whole, in part, torn in a page, or not at all.
func TestDisk_TornWrite(t *testing.T) {
	torn := 0
	for seed := range uint64(cuts) {
		d, dir := mounted(t, Journaled)
		path := filepath.Join(dir, "a")
		write(t, path, "", 0, true)
		all := bytes.Repeat([]byte("x"), 10*pageSize)
		write(t, path, string(all), 0, false)
		lost := cut(t, d, dir, seed)
		got, err := os.ReadFile(path)
		must(t, err)
		if bytes.Equal(got, all) != (lost == Lost{}) {
			t.Errorf("seed %d: got %d bytes, want them whole when nothing is lost: %+v", seed, len(got), lost)
		}
		for at := 0; at < len(got); at += sectorSize {
			if sector := got[at:min(at+sectorSize, len(got))]; bytes.Count(sector, []byte("x"))%sectorSize != 0 {
				t.Fatalf("seed %d: sector at %d is torn", seed, at)
			}
		}
		torn += lost.Torn
	}
	if torn == 0 {
		t.Error("got no torn write")
	}
}

// A name survives every cut if what the disk promises for was synced, and else only some.
func TestDisk_Names(t *testing.T) {
	for _, c := range []struct {
		names Names
		sync  string
		sure  bool
	}{
		{Journaled, "nothing", false}, {Journaled, "other", true}, {Journaled, "file", true},
		{WithFile, "other", false}, {WithFile, "file", true}, {WithFile, "directory", true},
		{WithDirectory, "other", false}, {WithDirectory, "file", false}, {WithDirectory, "directory", true},
	} {
		t.Run(fmt.Sprintf("%d %s", c.names, c.sync), func(t *testing.T) {
			survived := 0
			for seed := range uint64(cuts) {
				d, dir := mounted(t, c.names)
				write(t, filepath.Join(dir, "other"), "", 0, false)
				write(t, filepath.Join(dir, "a"), "", 0, false)
				must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
				switch c.sync {
				case "other":
					write(t, filepath.Join(dir, "other"), "", 0, true)
				case "file":
					write(t, filepath.Join(dir, "b"), "", 0, true)
				case "directory":
					syncDir(t, dir)
				}
				cut(t, d, dir, seed)
				_, a := os.Stat(filepath.Join(dir, "a"))
				_, b := os.Stat(filepath.Join(dir, "b"))
				if a == nil && b == nil {
					t.Errorf("seed %d: got the old name and the new one", seed)
				}
				if b == nil {
					survived++
				}
			}
			if sure := survived == cuts; sure != c.sure || survived == 0 {
				t.Errorf("got the name after %d of %d cuts, want sure %v", survived, cuts, c.sure)
			}
		})
	}
}

// What was not synced into a lying disk is not there.
func TestDisk_Ignored(t *testing.T) {
	lost := 0
	for seed := range uint64(cuts) {
		d, dir := mounted(t, Journaled)
		d.Ignored = func(path string) bool { return path == "/a" }
		write(t, filepath.Join(dir, "a"), "text", 0, true)
		syncDir(t, dir)
		cut(t, d, dir, seed)
		got, err := os.ReadFile(filepath.Join(dir, "a"))
		must(t, err)
		if len(got) == 0 {
			lost++
		}
	}
	if lost == 0 {
		t.Error("got everything although the disk lies")
	}
}

// The power fails instead of a change, nobody sees an error before the disk is unplugged, and all do after.
func TestDisk_CutAfter(t *testing.T) {
	d, dir := mounted(t, Journaled)
	path := filepath.Join(dir, "a")
	failed := make(chan struct{})
	write(t, path, "", 0, true)
	d.CutAfter(2, func() { close(failed) })
	ended := make(chan error)
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			_, err = f.WriteString("first")
		}
		if err == nil {
			_, err = f.WriteString("second")
			f.Close()
		}
		ended <- err
	}()
	<-failed
	select {
	case err := <-ended:
		t.Fatalf("got %v from a disk without power, want nothing", err)
	default:
	}
	d.Unplug()
	if err := <-ended; err == nil {
		t.Error("got no error from an unplugged disk")
	}
	cut(t, d, dir, 1)
	if got, err := os.ReadFile(path); err != nil || string(got) != "first" && len(got) > 0 {
		t.Errorf("got %q, %v, want what was written before the cut, or nothing", got, err)
	}
}
