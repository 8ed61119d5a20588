// Package filestoretest finds records in the files of a stream, for tests that damage them.
package filestoretest

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// RecordHead is the length of a record before its subject, in bytes.
const RecordHead = 22

// At is the offset at which a message's record begins in a block.
func At(t testing.TB, block []byte, seq uint64) int {
	t.Helper()
	for at := 0; at < len(block); at += int(binary.LittleEndian.Uint32(block[at:]) &^ (1 << 31)) {
		if binary.LittleEndian.Uint64(block[at+4:]) == seq {
			return at
		}
	}
	t.Fatalf("the block has no message %d", seq)
	return 0
}

// Compressed reports whether a block is compressed as a whole.
func Compressed(block []byte) bool { return bytes.HasPrefix(block, []byte("cmp")) }
