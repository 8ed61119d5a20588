package jsonread

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// text reads a string. Without escapes the result is a part of the data.
func (r *Reader) text() (text []byte, whole bool) {
	r.byte('"')
	if r.err != nil {
		return nil, false
	}
	start := r.at
	for r.at < len(r.data) {
		switch c := r.data[r.at]; {
		case c == '"':
			r.at++
			return r.data[start : r.at-1], true
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			r.fail()
			return nil, false
		}
		r.at++
	}
	r.fail()
	return nil, false
}

// escaped reads on from the first escape of a string that began at start.
func (r *Reader) escaped(start int) (text []byte, whole bool) {
	text = append(make([]byte, 0, 2*(r.at-start)+64), r.data[start:r.at]...)
	whole = true
	for r.at < len(r.data) {
		c := r.data[r.at]
		switch {
		case c == '"':
			r.at++
			return text, whole
		case c < ' ':
			r.fail()
			return nil, false
		case c != '\\':
			text = append(text, c)
			r.at++
			continue
		}
		if r.at+1 == len(r.data) {
			break
		}
		switch c := r.data[r.at+1]; c {
		case 'u':
			char, ok := r.unicode()
			if r.err != nil {
				return nil, false
			}
			text = utf8.AppendRune(text, char)
			whole = whole && ok
			continue
		case '"', '\\', '/':
			text = append(text, c)
		case 'b':
			text = append(text, '\b')
		case 'f':
			text = append(text, '\f')
		case 'n':
			text = append(text, '\n')
		case 'r':
			text = append(text, '\r')
		case 't':
			text = append(text, '\t')
		default:
			r.fail()
			return nil, false
		}
		r.at += 2
	}
	r.fail()
	return nil, false
}

// unicode reads \uXXXX, with its second half if it is the first of a pair. A half alone gives U+FFFD and false.
func (r *Reader) unicode() (rune, bool) {
	first := r.hex()
	if !utf16.IsSurrogate(first) {
		return first, true
	}
	if r.err == nil && r.at+1 < len(r.data) && r.data[r.at] == '\\' && r.data[r.at+1] == 'u' {
		before := r.at
		if char := utf16.DecodeRune(first, r.hex()); char != utf8.RuneError {
			return char, true
		}
		r.at = before // not its other half: a character of its own
	}
	return utf8.RuneError, false
}

func (r *Reader) hex() rune {
	if r.at+6 > len(r.data) {
		r.fail()
		return 0
	}
	n, err := strconv.ParseUint(string(r.data[r.at+2:r.at+6]), 16, 16)
	if err != nil {
		r.fail()
		return 0
	}
	r.at += 6
	return rune(n)
}
