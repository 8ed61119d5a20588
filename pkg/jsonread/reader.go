// Package jsonread reads the JSON of a request in one pass, without reflection, and lets its caller judge each value's
// kind: a number where text belongs is the caller's finding, not a failure of the whole.
package jsonread

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"unicode/utf8"
)

// maxDepth bounds how deep values may nest; deeper ones are ErrSyntax.
const maxDepth = 100

// ErrSyntax says that the data is not one JSON value in UTF-8. Its text gives an offset and never the data.
var ErrSyntax = errors.New("not valid JSON")

// Kind is what a value is.
type Kind byte

// The kinds. None stands where no value begins.
const (
	None Kind = iota
	Object
	Array
	String
	Number
	Bool
	Null
)

// Reader reads one JSON value. After the first error it reads nothing more, and Close tells the error: there is no
// need to look in between.
type Reader struct {
	data  []byte
	at    int
	depth int
	err   error
}

// New reads data, which must not change meanwhile.
func New(data []byte) *Reader {
	r := &Reader{data: data}
	if !utf8.Valid(data) {
		r.err = fmt.Errorf("%w: not UTF-8", ErrSyntax)
	}
	return r
}

// Close checks that nothing follows the value that was read, and returns the first error.
func (r *Reader) Close() error {
	if r.space(); r.err == nil && r.at < len(r.data) {
		r.fail()
	}
	return r.err
}

// Next is the kind of the value that comes next.
func (r *Reader) Next() Kind {
	r.space()
	if r.err != nil || r.at == len(r.data) {
		return None
	}
	switch c := r.data[r.at]; c {
	case '{':
		return Object
	case '[':
		return Array
	case '"':
		return String
	case 't', 'f':
		return Bool
	case 'n':
		return Null
	default:
		if c == '-' || digit(c) {
			return Number
		}
		return None
	}
}

// Elements goes through the array that comes next. The loop's body reads the element; one that it leaves is skipped.
func (r *Reader) Elements() iter.Seq[int] {
	return func(yield func(int) bool) {
		if !r.open('[') {
			return
		}
		for i := 0; r.more(']', i == 0); i++ {
			start := r.at
			if !yield(i) {
				return
			}
			if r.at == start {
				r.Skip()
			}
		}
	}
}

// Fields goes through the object that comes next, in the order of the text, a name as often as it stands there. The
// name is the body's only until it reads on. The body reads the field's value; one that it leaves is skipped.
func (r *Reader) Fields() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if !r.open('{') {
			return
		}
		for i := 0; r.more('}', i == 0); i++ {
			name, _ := r.text()
			r.space()
			r.byte(':')
			r.space()
			if r.err != nil {
				return
			}
			start := r.at
			if !yield(name) {
				return
			}
			if r.at == start {
				r.Skip()
			}
		}
	}
}

// Text reads the string that comes next. It is not whole if an escape in it named half a surrogate pair, which no
// UTF-8 can hold; U+FFFD stands for it.
func (r *Reader) Text() (text string, whole bool) {
	r.space()
	raw, whole := r.text()
	return string(raw), whole
}

// Int reads the number that comes next; ok says that it is an integer that fits.
func (r *Reader) Int() (n int64, ok bool) {
	r.space()
	start := r.at
	r.number()
	if r.err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(r.data[start:r.at]), 10, 64)
	return n, err == nil
}

// Skip reads past the value that comes next, whatever it is.
func (r *Reader) Skip() {
	switch r.Next() {
	case Object:
		for range r.Fields() {
		}
	case Array:
		for range r.Elements() {
		}
	case String:
		r.text()
	case Number:
		r.number()
	case Bool:
		if r.data[r.at] == 't' {
			r.literal("true")
		} else {
			r.literal("false")
		}
	case Null:
		r.literal("null")
	default:
		r.fail()
	}
}

// open steps into an array or object.
func (r *Reader) open(bracket byte) bool {
	r.space()
	r.byte(bracket)
	if r.depth++; r.depth > maxDepth {
		r.fail()
	}
	return r.err == nil
}

// more steps to the next element or out at the end.
func (r *Reader) more(bracket byte, first bool) bool {
	r.space()
	if r.err == nil && r.at < len(r.data) && r.data[r.at] == bracket {
		r.at++
		r.depth--
		return false
	}
	if !first {
		r.byte(',')
		r.space()
	}
	return r.err == nil
}

func (r *Reader) space() {
	for r.at < len(r.data) {
		switch r.data[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

func (r *Reader) byte(want byte) {
	if r.err == nil && r.at < len(r.data) && r.data[r.at] == want {
		r.at++
		return
	}
	r.fail()
}

func (r *Reader) literal(want string) {
	if r.err == nil && bytes.HasPrefix(r.data[r.at:], []byte(want)) {
		r.at += len(want)
		return
	}
	r.fail()
}

func (r *Reader) number() {
	if r.at < len(r.data) && r.data[r.at] == '-' {
		r.at++
	}
	if r.at < len(r.data) && r.data[r.at] == '0' {
		r.at++
	} else {
		r.digits()
	}
	if r.at < len(r.data) && r.data[r.at] == '.' {
		r.at++
		r.digits()
	}
	if r.at < len(r.data) && (r.data[r.at] == 'e' || r.data[r.at] == 'E') {
		r.at++
		if r.at < len(r.data) && (r.data[r.at] == '+' || r.data[r.at] == '-') {
			r.at++
		}
		r.digits()
	}
}

func (r *Reader) digits() {
	start := r.at
	for r.at < len(r.data) && digit(r.data[r.at]) {
		r.at++
	}
	if r.at == start {
		r.fail()
	}
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func (r *Reader) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("%w at byte %d", ErrSyntax, r.at)
	}
}
