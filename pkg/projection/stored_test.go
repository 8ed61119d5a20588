package projection

import (
	"bytes"
	"testing"
)

// FuzzCursor: a stored cursor is read as it was written, or is refused.
func FuzzCursor(f *testing.F) {
	f.Add(cursor{seq: 1, time: -1, created: 1 << 62}.bytes())
	f.Add([]byte{})
	f.Add(make([]byte, 25))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeCursor(data)
		if err == nil && !bytes.Equal(c.bytes(), data) {
			t.Errorf("%x is read as %+v", data, c)
		}
		if err != nil && len(data) == 24 {
			t.Errorf("%x is refused: %v", data, err)
		}
	})
}
