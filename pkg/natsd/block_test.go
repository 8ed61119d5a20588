package natsd

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzBlock: whatever a block holds, its damaged stretches lie in it, one behind the other, and once they are set aside
// there are none.
func FuzzBlock(f *testing.F) {
	path := filepath.Join(f.TempDir(), "1.blk")
	open := func(t testing.TB, data []byte, last, staged bool) *block {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := openBlock(path, "S", 1, last)
		if err != nil {
			t.Fatal(err)
		}
		b.staged = staged
		return b
	}
	b := open(f, make([]byte, 4*emptyRecord), false, false)
	for i := range 4 { // what stands in the place of a damaged stretch is a whole record
		if err := b.setAside(damage{from: i * emptyRecord, to: (i + 1) * emptyRecord}); err != nil {
			f.Fatal(err)
		}
	}
	records, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	for _, last := range []bool{false, true} {
		f.Add(records, last, false)
		f.Add(append(bytes.Repeat([]byte{1}, 50), records...), last, true)
		f.Add(append(append(records[:emptyRecord:emptyRecord], bytes.Repeat([]byte{0x80}, 40)...), records...), last, true)
		f.Add([]byte("cmp"), last, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, last, staged bool) {
		b := open(t, data, last, staged)
		behind := 0
		all := b.damages()
		for _, d := range all {
			if d.from < behind || d.to-d.from < emptyRecord || d.to > len(data) {
				t.Fatalf("of %d bytes: got %+v", len(data), all)
			}
			behind = d.to
			if err := b.setAside(d); err != nil {
				t.Fatal(err)
			}
		}
		mended, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := open(t, mended, last, staged).damages(); len(got) > 0 && len(all) > 0 && got[0].from <= all[0].from {
			t.Fatalf("%+v was set aside, and there is still %+v", all, got)
		}
	})
}
