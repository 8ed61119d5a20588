package natsd

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/testkit/disktest"
)

// damagedCompression is how a block begins that was compressed and is damaged.
const damagedCompression = "cmp\x01\x20\x00\x00\x00\x00\x00\x00\x00"

// checkWhole holds that the stream has all its messages.
func checkWhole(t *testing.T, s *Server) {
	t.Helper()
	conn, err := s.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	if got := latest(t, mustStream(t, conn)); got != damagedMessages {
		t.Errorf("the stream ends at %d, want %d", got, damagedMessages)
	}
}

// The engine deletes a stream that it cannot open. It is put back, byte for
// byte, and the start fails with its name.
func TestStart_StreamThatCannotBeOpened(t *testing.T) {
	dir := crashed(t)
	path := blockOf(t, dir, 1)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte(damagedCompression), whole...)
	change(t, path, func([]byte) []byte { return broken })
	_, err = Start(Options{Dir: dir, InProcessOnly: true})
	if err == nil || !strings.Contains(err.Error(), "cannot open S,") {
		t.Fatalf("got %v, want an error that names the stream", err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, broken) {
		t.Fatalf("the block is not what it was: %d bytes, %v", len(got), err)
	}

	change(t, path, func([]byte) []byte { return whole })
	s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
	defer s.Stop()
	checkWhole(t, s)
	if _, err := os.Stat(s.openingDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("second names are left: %v", err)
	}
}

// What the engine was told to delete and had no time to is no stream.
func TestStart_DeletedStreamIsLeft(t *testing.T) {
	dir := crashed(t)
	streams := filepath.Join(dir, engineDir, "jetstream", "$G", "streams")
	if err := os.CopyFS(filepath.Join(streams, ".GONE"), os.DirFS(filepath.Join(streams, "S"))); err != nil {
		t.Fatal(err)
	}
	s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
	defer s.Stop()
	checkWhole(t, s)
}

// A stream that has messages and lacks a file of its definition was not cut short in its making.
func TestStart_StreamWithoutDefinition(t *testing.T) {
	for _, name := range []string{"meta.inf", "meta.sum"} {
		t.Run(name, func(t *testing.T) {
			dir := crashed(t)
			path := filepath.Join(dir, engineDir, "jetstream", "$G", "streams", "S", name)
			whole, err := os.ReadFile(path)
			if err == nil {
				err = os.Remove(path)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Start(Options{Dir: dir, InProcessOnly: true}); err == nil || !strings.Contains(err.Error(), "cannot open S,") {
				t.Fatalf("got %v, want an error that names the stream", err)
			}
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
			defer s.Stop()
			checkWhole(t, s)
		})
	}
}

// A power cut may leave a stream with a part of its files only, while it is
// made: it is made again.
func TestStart_StreamWhoseMakingWasCutShort(t *testing.T) {
	dir := crashed(t)
	streams := filepath.Join(dir, engineDir, "jetstream", "$G", "streams")
	for name, files := range map[string][]string{
		"NOTHING": nil, "BLOCK": {"msgs/1.blk"}, "META": {"meta.inf"}, "ALL": {"meta.inf", "meta.sum", "msgs/1.blk"},
	} {
		for _, part := range []string{"msgs", "obs"} {
			if err := os.MkdirAll(filepath.Join(streams, name, part), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(streams, name, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
	defer s.Stop()
	checkWhole(t, s)
	left, err := os.ReadDir(streams)
	if err != nil || len(left) != 1 {
		t.Errorf("got %v, %v, want the stream that was made only", left, err)
	}
}

// A process that was killed when the engine had deleted a stream, and before
// that was put back.
func TestStart_CutShort(t *testing.T) {
	dir := crashed(t)
	store, opening := filepath.Join(dir, engineDir, "jetstream"), filepath.Join(dir, engineDir, openingDir)
	if err := os.CopyFS(opening, os.DirFS(store)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(store, "$G", "streams", "S", "meta.inf")); err != nil {
		t.Fatal(err)
	}
	s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
	defer s.Stop()
	checkWhole(t, s)
}

// On a disk without room, or that cannot be written, the engine is not even
// started.
func TestStart_FullDisk(t *testing.T) {
	disk := disktest.Tmpfs(t, 64*mib)
	dir := filepath.Join(disk, "data")
	copyPrivate(t, crashed(t), dir)
	for name, reserve := range map[string]int64{"to the last byte": 0, "to the floor": 60 * mib} {
		t.Run(name, func(t *testing.T) {
			leave := int64(0)
			if reserve > 0 {
				leave = mib
			}
			remove := disktest.Fill(t, disk, leave)
			defer remove()
			_, err := Start(Options{Dir: dir, InProcessOnly: true, ReserveBytes: reserve})
			if err == nil || !strings.Contains(err.Error(), "no space left") && !strings.Contains(err.Error(), "make room") {
				t.Errorf("got %v, want an error that says what is wrong", err)
			}
		})
	}
	s := mustStart(t, Options{Dir: dir, InProcessOnly: true})
	defer s.Stop()
	checkWhole(t, s)
}
