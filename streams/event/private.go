package event

import (
	"fmt"
	"strings"
)

// Private is a phone number or the text of a message. However it is printed,
// logged or marshalled, it shows only its length; Encode and Reveal show it.
type Private string

// Reveal gives the content.
func (p Private) Reveal() string { return string(p) }

// String hides the content.
func (p Private) String() string { return fmt.Sprintf("[%d bytes]", len(p)) }

// GoString hides the content.
func (p Private) GoString() string { return p.String() }

// Format hides the content under every verb.
func (p Private) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(p.String())) }

// MarshalText hides the content, also from JSON.
func (p Private) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText takes the content as it is.
func (p *Private) UnmarshalText(text []byte) error {
	*p = Private(text)
	return nil
}

// TextSize is how many bytes a text takes in an event, where some characters are written as escapes.
func TextSize(text string) int {
	size := len(text)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"', c == '\\', c == '\b', c == '\f', c == '\n', c == '\r', c == '\t':
			size++
		case c < ' ':
			size += len(`\u0000`) - 1
		case c == 0xe2 && strings.HasPrefix(text[i:], "\u2028"), c == 0xe2 && strings.HasPrefix(text[i:], "\u2029"):
			size += len(`\u2028`) - len("\u2028")
		}
	}
	return size
}
