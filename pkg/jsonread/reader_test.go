package jsonread

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// read turns the next value into what encoding/json makes of it.
func read(r *Reader) any {
	switch r.Next() {
	case Object:
		m := map[string]any{}
		for name := range r.Fields() {
			key := string(name)
			m[key] = read(r)
		}
		return m
	case Array:
		a := []any{}
		for range r.Elements() {
			a = append(a, read(r))
		}
		return a
	case String:
		text, _ := r.Text()
		return text
	case Number:
		n, _ := r.Int()
		return n
	default:
		r.Skip()
		return nil
	}
}

func TestReader(t *testing.T) {
	tests := []struct {
		name, data string
		want       any
	}{
		{"empty array", ` [ ] `, []any{}},
		{"empty object", `{}`, map[string]any{}},
		{"nested", `{"a":[1,-20,{"b":"c"}],"d":null}`, map[string]any{"a": []any{int64(1), int64(-20), map[string]any{"b": "c"}}, "d": nil}},
		{"the last of a name counts", `{"a":1,"a":2}`, map[string]any{"a": int64(2)}},
		{"escapes", `"\"\\\/\b\f\n\r\tA\u00e9\u20ac\ud83d\ude00 é€😀"`, "\"\\/\b\f\n\r\tAé€😀 é€😀"},
		{"an escaped name", `{"\u0061":1}`, map[string]any{"a": int64(1)}},
		{"half a pair", `"a\ud83db"`, "a\ufffdb"},
		{"two first halves", `"\ud83d\ud83d\ude00"`, "\ufffd😀"},
		{"half a pair and a character", `"\ud83d\u0041"`, "\ufffdA"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := New([]byte(test.data))
			got := read(r)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("read (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReader_Refuses(t *testing.T) {
	for _, data := range []string{
		``, ` `, `{`, `[`, `"`, `"a`, `"\`, `"\x"`, `"\u12"`, `"\u12g4"`, "\"\n\"", `[1,]`, `[,1]`, `[1 2]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`,
		`01`, `-`, `1.`, `1e`, `.5`, `+1`, `tru`, `nul`, `falsey`, `1 2`, `[]]`, "\"\xff\"", "\xef\xbb\xbf[]", strings.Repeat("[", 101) + strings.Repeat("]", 101),
	} {
		r := New([]byte(data))
		r.Skip()
		if err := r.Close(); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: got %v, want ErrSyntax", data, err)
		}
	}
}

func TestReader_Text_HalfAPair(t *testing.T) {
	for data, want := range map[string]bool{`"a"`: true, `"\ud83d\ude00"`: true, `"\ufffd"`: true, `"\ud83d"`: false, `"\ude00"`: false, `"\ud83d\ud83d"`: false} {
		if _, got := New([]byte(data)).Text(); got != want {
			t.Errorf("%s: whole is %v, want %v", data, got, want)
		}
	}
}

func TestReader_Int(t *testing.T) {
	for data, want := range map[string]bool{`2`: true, `-7`: true, `2.0`: false, `2e0`: false, `9223372036854775808`: false} {
		r := New([]byte(data))
		if _, got := r.Int(); got != want || r.Close() != nil {
			t.Errorf("%s: ok is %v, want %v (%v)", data, got, want, r.Close())
		}
	}
}

// What a loop's body leaves is skipped, whole.
func TestReader_SkipsWhatIsLeft(t *testing.T) {
	r := New([]byte(`[{"a":{"b":[1,"]"]},"c":"yes"},[[]],"x"]`))
	var got []string
	for range r.Elements() {
		if r.Next() != Object {
			continue
		}
		for name := range r.Fields() {
			if string(name) == "c" {
				text, _ := r.Text()
				got = append(got, text)
			}
		}
	}
	if err := r.Close(); err != nil || len(got) != 1 || got[0] != "yes" {
		t.Errorf("got %q, %v", got, err)
	}
}

// FuzzReader holds the reader to encoding/json: the same texts are JSON, and strings are the same.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{`[{"phone":"+123456","message":"a\u00e9\ud83d\ude00"}]`, `{"a":[1,2.5e3,true,null]}`, `"\ud83d"`, `[01]`, "\"\xff\"", `{"a":1}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := New(data)
		var text string
		isText := r.Next() == String
		if isText {
			text, _ = r.Text()
		} else {
			r.Skip()
		}
		err := r.Close()
		valid := json.Valid(data)
		if err == nil && !valid {
			t.Fatalf("%q is read, but is not JSON", data)
		}
		// encoding/json takes bytes that are not UTF-8, and nests deeper.
		if err != nil && valid && strings.ToValidUTF8(string(data), "") == string(data) && strings.Count(string(data), "[")+strings.Count(string(data), "{") <= maxDepth {
			t.Fatalf("%q is JSON, but is refused: %v", data, err)
		}
		if err == nil && isText {
			var want string
			if json.Unmarshal(data, &want) != nil || text != want {
				t.Fatalf("%q: got %q, want %q", data, text, want)
			}
		}
	})
}

func BenchmarkReader(b *testing.B) {
	item := `{"phone":"+1234567890","message":"Hello, this is a test message of a usual length, with an é in it"},`
	data := []byte("[" + strings.Repeat(item, 199) + item[:len(item)-1] + "]")
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		r := New(data)
		r.Skip()
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
