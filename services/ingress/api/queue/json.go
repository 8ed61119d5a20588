package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// decode reads a body. A value of the wrong type is no fault here: the types below
// note it, and the rules of its item reject it.
func decode(body []byte, to any) error {
	// encoding/json would replace bytes that are not UTF-8 with U+FFFD.
	if !utf8.Valid(body) || json.Unmarshal(body, to) != nil {
		return errJSON
	}
	return nil
}

// perItem is what an item takes once it is read, beside its texts.
const perItem = 512 // bytes

// parsed is how much memory it takes to read a body: its texts a second time, and perItem for each item. A body has at
// most one item more than it has commas.
func parsed(body []byte) int64 {
	return int64(len(body) + min(bytes.Count(body, []byte(",")), maxItems)*perItem)
}

// maybe is a value that should be a T.
type maybe[T any] struct {
	value T
	ok    bool // it is a T, and not null
}

// UnmarshalJSON notes whether the value is a T. It never fails.
func (m *maybe[T]) UnmarshalJSON(raw []byte) error {
	*m = maybe[T]{}
	m.ok = json.Unmarshal(raw, &m.value) == nil && raw[0] != 'n'
	return nil
}

// text is a value that should be a text. Null is the same as no value.
type text struct {
	value string
	wrong bool // it is something else
	half  bool // it has half a surrogate pair, which is no character
}

// UnmarshalJSON notes whether the value is a text. It never fails.
func (t *text) UnmarshalJSON(raw []byte) error {
	*t = text{}
	if raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 { // nothing in it is escaped
		t.value = string(raw[1 : len(raw)-1])
		return nil
	}
	t.wrong = json.Unmarshal(raw, &t.value) != nil
	// encoding/json replaces the half with U+FFFD.
	t.half = strings.ContainsRune(t.value, utf8.RuneError) && httpx.HasHalf(raw)
	return nil
}

// list is a value that should be an array. At most one item more than maxItems is
// read: a body of 4 MiB has room for two million.
type list[T any] struct {
	items []maybe[T]
	ok    bool // it is an array
}

// UnmarshalJSON reads the items of an array, and notes whether the value is one.
func (l *list[T]) UnmarshalJSON(raw []byte) (err error) {
	*l = list[T]{}
	if raw[0] == '[' {
		*l, err = decodeList[T](raw)
	}
	return err
}

// decodeList reads an array of objects, and nothing behind it. It reads each item
// in place: encoding/json looks at each byte of a type that decodes itself once
// more, at every level.
func decodeList[T any](body []byte) (list[T], error) {
	l := list[T]{ok: true}
	d := json.NewDecoder(bytes.NewReader(body))
	_, err := d.Token() // the bracket
	for err == nil && d.More() {
		if len(l.items) > maxItems {
			return l, nil
		}
		var item maybe[T]
		err = d.Decode(&item.value)
		var other *json.UnmarshalTypeError
		if errors.As(err, &other) {
			err = nil
		} else {
			item.ok = err == nil && body[d.InputOffset()-1] == '}' // and not null
		}
		l.items = append(l.items, item)
	}
	if err == nil {
		_, err = d.Token() // the other bracket
	}
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return l, nil
		}
	}
	return l, errJSON
}
