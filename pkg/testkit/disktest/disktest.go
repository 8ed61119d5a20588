// Package disktest gives a test a small disk of its own, which can be filled,
// made read-only, and made to fail.
package disktest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/testkit/testnote"
)

// Tmpfs mounts a file system of so many bytes, and unmounts it when the test ends. Start
// what uses it afterwards, so that it ends before. Where mounting is not allowed, the
// test is skipped.
func Tmpfs(t testing.TB, bytes int64) (dir string) {
	t.Helper()
	mayMount(t)
	dir = t.TempDir()
	if err := run("mount", "-t", "tmpfs", "-o", "size="+strconv.FormatInt(bytes, 10)+",mode=0700", "tmpfs", dir); err != nil {
		testnote.Skip(t, "mounting a tmpfs fails: "+err.Error())
	}
	unmountAfter(t, dir)
	return dir
}

// Disk is an ext4 file system that can fail.
type Disk struct {
	Dir   string
	image string
}

// Ext4 is Tmpfs with an ext4 file system, in a file of so many bytes.
func Ext4(t testing.TB, bytes int64) *Disk {
	t.Helper()
	mayMount(t)
	d := &Disk{Dir: t.TempDir(), image: filepath.Join(t.TempDir(), "image")}
	file, err := os.Create(d.image)
	if err == nil {
		err = file.Truncate(bytes)
		file.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", d.image); err != nil {
		testnote.Skip(t, "making an ext4 fails: "+err.Error())
	}
	if err := d.mount(); err != nil {
		testnote.Skip(t, "mounting an ext4 fails: "+err.Error())
	}
	unmountAfter(t, d.Dir)
	return d
}

func (d *Disk) mount() error { return run("mount", "-o", "loop,errors=remount-ro", d.image, d.Dir) }

// Fail makes the kernel find an error on the disk, as when a device fails. From then on
// the disk can be read but not written, also by those who have files open.
func (d *Disk) Fail(t testing.TB) {
	t.Helper()
	source, err := exec.Command("findmnt", "-n", "-o", "SOURCE", d.Dir).Output()
	if err != nil {
		t.Fatalf("find the device of %s: %v", d.Dir, err)
	}
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(strings.TrimSpace(string(source))), "trigger_fs_error")
	if err := os.WriteFile(trigger, []byte("test"), 0); err != nil {
		testnote.Skip(t, "an ext4 cannot be made to fail: "+err.Error())
	}
	if d.writable() {
		testnote.Skip(t, "an ext4 can be written after its error")
	}
}

// Replace unmounts the disk, checks it and mounts it again. Nobody may use it meanwhile.
func (d *Disk) Replace(t testing.TB) {
	t.Helper()
	// The kernel may write the error to the disk after the check. Then the check has to
	// be made again.
	for range 10 {
		err := unmount(d.Dir)
		if err == nil {
			_ = run("e2fsck", "-fy", d.image) // it fails also where it has repaired something
			err = d.mount()
		}
		if err != nil {
			t.Fatal(err)
		}
		if d.writable() {
			return
		}
	}
	t.Fatal("the disk cannot be written although it was checked")
}

func (d *Disk) writable() bool {
	path := filepath.Join(d.Dir, "written")
	return os.WriteFile(path, nil, 0o600) == nil && os.Remove(path) == nil
}

// Remount changes the options of the file system at dir, for example to "ro".
func Remount(t testing.TB, dir, options string) {
	t.Helper()
	if err := run("mount", "-o", "remount,"+options, dir); err != nil {
		t.Fatal(err)
	}
}

// Fill writes a file that leaves so many bytes free. remove removes it.
func Fill(t testing.TB, dir string, leave int64) (remove func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 4096)
	for free(t, dir) > leave {
		if _, err := file.Write(block); err != nil {
			break // it is full
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func free(t testing.TB, dir string) int64 {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

func mayMount(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		testnote.Skip(t, "only root on Linux can mount a disk to try")
	}
}

// unmountAfter unmounts dir when the test ends, if it is mounted then.
func unmountAfter(t testing.TB, dir string) {
	t.Helper()
	t.Cleanup(func() {
		if exec.Command("mountpoint", "-q", dir).Run() != nil {
			return // unmounted already
		}
		if err := unmount(dir); err != nil {
			t.Errorf("%v; it is detached", err)
			_ = run("umount", "-l", dir)
		}
	})
}

// unmount tries again for a while: a process that was killed may still have files
// open.
func unmount(dir string) (err error) {
	for range 50 {
		if err = run("umount", dir); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
