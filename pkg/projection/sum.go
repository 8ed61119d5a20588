package projection

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
)

// bbolt has no checksums: a bit that flips on the disk becomes a wrong number, or a
// panic. So a closed file has a checksum beside it, and is rebuilt if that is wrong.
// The file of a killed process has none: only its structure can be checked.

func sumPath(path string) string { return path + ".sum" }

// sumOf reads a file as a whole.
func sumOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	size, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{file}, make([]byte, 1<<20))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("crc32c %08x of %d bytes", sum.Sum32(), size), nil
}

// writeSum writes the checksum of a file that is closed and synced.
func writeSum(path string) error {
	sum, err := sumOf(path)
	if err == nil {
		err = writeSynced(sumPath(path), sum+"\n")
	}
	if err != nil {
		return fmt.Errorf("write checksum of %s: %w", path, err)
	}
	return nil
}

// checkSum compares a file with its checksum. known is false where there is none.
func checkSum(path string) (known, fits bool, err error) {
	want, err := os.ReadFile(sumPath(path))
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	var got string
	if err == nil {
		got, err = sumOf(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return true, true, nil // there is no file to be damaged
	}
	if err != nil {
		return false, false, fmt.Errorf("check %s: %w", path, err)
	}
	return true, got == strings.TrimSpace(string(want)), nil
}

// dropSum removes the checksum of a file that is about to be written.
func dropSum(path string) error {
	if err := os.Remove(sumPath(path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
