// Package secret keeps tokens, passwords, numbers and texts out of logs and errors.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"strings"
)

const hidden = "[secret]"

// String is a token, password, phone number or message text. Every way to print or encode it gives "[secret]";
// only Reveal gives the value, so a search for Reveal finds each place that hands it on. It decodes from JSON and
// YAML as a plain string. It is no good as a map's key: encoding/json writes string keys as they are.
type String string

// Reveal returns the value.
func (s String) Reveal() string { return string(s) }

// Equal compares in a time that depends neither on the values nor on their lengths.
func (s String) Equal(other String) bool {
	a, b := sha256.Sum256([]byte(s)), sha256.Sum256([]byte(other))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String gives "[secret]".
func (String) String() string { return hidden }

// GoString gives "[secret]".
func (String) GoString() string { return hidden }

// Format writes "[secret]" for every verb; without it %x and %q would print the value.
func (String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalJSON gives "[secret]".
func (String) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText gives "[secret]"; encoders other than JSON's use it.
func (String) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// minToken is the shortest run of token characters that Mask takes for a token. Ours have 64; ids have 16.
const minToken = 32

// Mask makes a request path fit for a log: a path segment that holds 32 or more token characters in a row becomes
// "[token]", and so does the value of any query parameter whose name speaks of a token, password, secret or key.
func Mask(path string) string {
	path, query, hasQuery := strings.Cut(path, "?")
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if longRun(s) {
			segments[i] = "[token]"
		}
	}
	masked := strings.Join(segments, "/")
	if !hasQuery {
		return masked
	}
	params := strings.Split(query, "&")
	for i, p := range params {
		name, value, _ := strings.Cut(p, "=")
		if longRun(name) {
			name = "[token]"
		}
		if longRun(value) || (value != "" && secretName(name)) {
			value = "[token]"
		}
		if strings.Contains(p, "=") {
			name += "=" + value
		}
		params[i] = name
	}
	return masked + "?" + strings.Join(params, "&")
}

func secretName(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"token", "pass", "secret", "key", "%"} { // an escaped name may spell any of them
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

func longRun(s string) bool {
	run := 0
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '%', c == '+', c == '=':
			run++
		default:
			run = 0
		}
		if run >= minToken {
			return true
		}
	}
	return false
}
