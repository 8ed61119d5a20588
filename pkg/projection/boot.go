package projection

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// Commits are not synced: what a killed process wrote is in the page cache
// and stays. Only a power loss takes it, so a mark beside the file, synced
// before the first write and removed after a clean close, names the boot under
// which the file was open. Another boot's mark means that the file cannot be
// trusted, and it is folded anew.

// bootID names the running boot; empty where the system does not tell.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func markPath(path string) string { return path + ".open" }

// readMark gives the boot under which the file was open and not closed; empty
// if it was closed.
func readMark(path string) (string, error) {
	mark, err := os.ReadFile(markPath(path))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read mark of %s: %w", path, err)
	}
	return strings.TrimSpace(string(mark)), nil
}

// markOpen leaves the mark.
func markOpen(path, boot string) error {
	err := writeSynced(markPath(path), boot+"\n")
	if err == nil {
		err = syncDir(path)
	}
	if err != nil {
		return fmt.Errorf("mark %s as open: %w", path, err)
	}
	return nil
}

// writeSynced writes a small file whose content is on the disk when it returns.
// Its name is only after syncDir.
func writeSynced(path, content string) error {
	return renameio.WriteFile(path, []byte(content), 0o600, renameio.WithTempDir(filepath.Dir(path)))
}

// markClosed removes the mark. The file itself must be synced.
func markClosed(path string) error {
	// A rename must not reach the disk after the mark has left it.
	err := syncDir(path)
	if err == nil {
		err = os.Remove(markPath(path))
	}
	if err == nil {
		err = syncDir(path)
	}
	if err != nil {
		return fmt.Errorf("mark %s as closed: %w", path, err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
