package httpx

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON encodes v, with <, > and & as they are and without a newline at the end. It panics if v cannot be encoded: a
// dialect encodes only types of its own, so that would be a bug.
func JSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// HasHalf reports whether valid JSON has an escape for half a surrogate pair, which is no character. encoding/json would
// decode it as U+FFFD, and a text must not change on its way.
func HasHalf(body []byte) bool {
	if !bytes.Contains(body, []byte(`\ud`)) && !bytes.Contains(body, []byte(`\uD`)) {
		return false
	}
	for len(body) > 0 {
		at := bytes.IndexByte(body, '\\')
		if at < 0 {
			return false
		}
		body = body[at:]
		one := escaped(body)
		switch {
		case one < 0: // another escape
			body = body[2:]
		case !utf16.IsSurrogate(one):
			body = body[6:]
		case utf16.DecodeRune(one, escaped(body[6:])) == utf8.RuneError:
			return true
		default:
			body = body[12:]
		}
	}
	return false
}

// escaped gives the code unit of a \u escape at the beginning of body, or -1 where there is none.
func escaped(body []byte) rune {
	if len(body) < 6 || body[0] != '\\' || body[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(body[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}
