package filestore

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
	open := func(t testing.TB, data []byte, last, staged bool) *Block {
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
		if err := b.SetAside(Damage{From: i * emptyRecord, To: (i + 1) * emptyRecord}); err != nil {
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
		all := b.Damages()
		for _, d := range all {
			if d.From < behind || d.To-d.From < emptyRecord || d.To > len(data) {
				t.Fatalf("of %d bytes: got %+v", len(data), all)
			}
			behind = d.To
			if err := b.SetAside(d); err != nil {
				t.Fatal(err)
			}
		}
		mended, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := open(t, mended, last, staged).Damages(); len(got) > 0 && len(all) > 0 && got[0].From <= all[0].From {
			t.Fatalf("%+v was set aside, and there is still %+v", all, got)
		}
	})
}
