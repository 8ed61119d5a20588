package projection

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// Commits to a projection are not synced, since a sync would cost more than the
// commit. If the process is killed, what it has written stays in the page cache
// and nothing is lost. Only a power loss can lose some pages of the file and keep
// others, and bbolt would not notice.
//
// So a mark beside the file names the boot of the machine in which the file was
// opened. The mark is synced before the first write, and removed after the file
// is closed and synced. A file is opened again if there is no mark, or if it names
// the running boot: then the machine has not lost power meanwhile. A mark of
// another boot means that the file cannot be trusted, and it is rebuilt. Where the
// system does not tell the boot, every commit is synced.

// bootID gives the id of the running boot, empty where the system does not tell it.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func markPath(path string) string { return path + ".open" }

// readMark gives the boot in which the file was opened and not closed, empty if it
// was closed.
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

// markOpen writes the mark, which is on the disk when it returns.
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

// markClosed removes the mark. The file itself must be synced before.
func markClosed(path string) error {
	// If the file was renamed into place, that must be on the disk before the mark
	// is gone.
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
