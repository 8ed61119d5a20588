//go:build unix

package natsd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lock is the lock of a data directory: only the process that has it may open the
// directory. The kernel releases it when that process ends, however it ends.
type lock struct {
	file *os.File
	// crashed: the process before this one did not release it in order.
	crashed bool
}

func takeLock(dir string) (*lock, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of data directory: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		defer file.Close()
		return nil, fmt.Errorf("data directory %s is in use by another process%s: stop that one first, or give this one its own directory", dir, holder(file))
	}
	crashed := holder(file) != ""
	if err == nil {
		err = writeHolder(file)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	return &lock{file, crashed}, nil
}

// release releases the lock. The file stays: if it were removed, two processes
// could lock two files of the same name. inOrder empties it; a file that is not
// empty tells the next process that this one has crashed.
func (l *lock) release(inOrder bool) {
	if inOrder {
		_ = l.file.Truncate(0)
	}
	// A process that was forked from this one and does not run its own program yet has the file open too: closing it
	// here alone would leave the lock to that process.
	_ = syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN)
	l.file.Close()
}

func writeHolder(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt(strconv.AppendInt(nil, int64(os.Getpid()), 10), 0)
	return err
}

// holder names the process that has written itself into the lock file.
func holder(file *os.File) string {
	pid, err := io.ReadAll(io.LimitReader(file, 20))
	if err != nil || len(pid) == 0 {
		return ""
	}
	return " (pid " + strings.TrimSpace(string(pid)) + ")"
}
