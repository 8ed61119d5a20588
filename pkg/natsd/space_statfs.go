//go:build linux || darwin

package natsd

import (
	"fmt"
	"syscall"
)

// readOnlyFlag is ST_RDONLY and MNT_RDONLY.
const readOnlyFlag = 1

// measureSpace counts only what users other than root can use.
func measureSpace(path string) (space, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return space{}, fmt.Errorf("measure free space of %s: %w", path, err)
	}
	block := uint64(s.Bsize)
	return space{
		total: s.Blocks * block, free: s.Bavail * block, used: (s.Blocks - s.Bfree) * block,
		files: s.Ffree, noFiles: s.Files == 0, // some file systems make them as they are needed
		readOnly: uint64(s.Flags)&readOnlyFlag != 0,
	}, nil
}
