package queueapi

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/trunkline-sms/trunkline/pkg/jsonread"
	"github.com/trunkline-sms/trunkline/streams"
)

// field is what stands under a name of an object: its text, if it is one.
type field struct {
	kind  jsonread.Kind // None also for null: a null says as much as no field
	text  string
	whole bool // the text is Unicode
}

func readField(r *jsonread.Reader) field {
	switch kind := r.Next(); kind {
	case jsonread.String:
		text, whole := r.Text()
		return field{kind, text, whole}
	case jsonread.Null:
		r.Skip()
		return field{}
	default:
		r.Skip()
		return field{kind: kind}
	}
}

// messageIn is an item of POST queue.
type messageIn struct {
	isObject             bool
	phone, message, text field
}

// readQueue reads the body of POST queue, an array of items or one alone. It
// stops after one item more than maxItems.
func readQueue(body []byte) ([]messageIn, error) {
	r := jsonread.New(body)
	var items []messageIn
	switch r.Next() {
	case jsonread.Array:
		for range r.Elements() {
			items = append(items, readMessage(r))
			if len(items) > maxItems {
				return items, nil
			}
		}
	case jsonread.Object:
		items = append(items, readMessage(r))
	default:
		r.Skip()
		if err := r.Close(); err != nil {
			return nil, err
		}
		return nil, errShape
	}
	return items, r.Close()
}

func readMessage(r *jsonread.Reader) messageIn {
	if r.Next() != jsonread.Object {
		r.Skip()
		return messageIn{}
	}
	m := messageIn{isObject: true}
	for name := range r.Fields() {
		switch string(name) {
		case "phone":
			m.phone = readField(r)
		case "message":
			m.message = readField(r)
		case "text":
			m.text = readField(r)
		}
	}
	return m
}

// statusIn is the body of POST status.
type statusIn struct {
	device   field
	messages []reportIn
	isArray  bool // messages is one
}

// reportIn is an item of POST status.
type reportIn struct {
	isObject bool
	hash     field
	status   int64 // 0 if it is no integer: none that can be set
}

// readStatus reads the body of POST status. It stops after one item more than
// maxItems.
func readStatus(body []byte) (statusIn, error) {
	r := jsonread.New(body)
	var in statusIn
	if r.Next() != jsonread.Object {
		r.Skip()
		if err := r.Close(); err != nil {
			return in, err
		}
		return in, errShape
	}
	for name := range r.Fields() {
		switch string(name) {
		case "device":
			in.device = readField(r)
		case "messages":
			in.messages, in.isArray = nil, r.Next() == jsonread.Array
			if !in.isArray {
				continue
			}
			for range r.Elements() {
				in.messages = append(in.messages, readReport(r))
				if len(in.messages) > maxItems {
					return in, nil
				}
			}
		}
	}
	return in, r.Close()
}

func readReport(r *jsonread.Reader) reportIn {
	if r.Next() != jsonread.Object {
		r.Skip()
		return reportIn{}
	}
	in := reportIn{isObject: true}
	for name := range r.Fields() {
		switch string(name) {
		case "hash":
			in.hash = readField(r)
		case "status":
			in.status = 0
			if r.Next() == jsonread.Number {
				in.status, _ = r.Int()
			}
		}
	}
	return in
}

// queuedOut is an item of POST queue's answer.
type queuedOut struct {
	index int
	hash  streams.MessageID
	phone string // of digits, maybe with a +
}

// errorOut is an item that was not queued. The text is one of ours.
type errorOut struct {
	index int
	text  string
}

// appendQueued writes the answer of POST queue. It is written by hand since it
// is the largest part of what a request of many items costs.
func appendQueued(b []byte, items []queuedOut, errors []errorOut) []byte {
	b = append(b, `{"ok":`...)
	b = strconv.AppendBool(b, len(items) > 0)
	b = append(b, `,"queued":`...)
	b = strconv.AppendInt(b, int64(len(items)), 10)
	b = append(b, `,"failed":`...)
	b = strconv.AppendInt(b, int64(len(errors)), 10)
	b = append(b, `,"items":[`...)
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"index":`...)
		b = strconv.AppendInt(b, int64(item.index), 10)
		b = append(b, `,"hash":"`...)
		b, _ = item.hash.AppendText(b)
		b = append(b, `","phone":"`...)
		b = append(b, item.phone...)
		b = append(b, `"}`...)
	}
	b = append(b, `],"errors":[`...)
	for i, e := range errors {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"index":`...)
		b = strconv.AppendInt(b, int64(e.index), 10)
		b = append(b, `,"error":"`...)
		b = append(b, e.text...)
		b = append(b, `"}`...)
	}
	return append(b, `]}`...)
}

// outgoingOut is an item of GET get_messages' answer.
type outgoingOut struct {
	Phone string            `json:"phone"`
	Text  string            `json:"text"`
	Hash  streams.MessageID `json:"hash"`
}

// updatedOut is POST status's answer.
type updatedOut struct {
	OK      bool         `json:"ok"`
	Updated int          `json:"updated"`
	Errors  []problemOut `json:"errors,omitempty"`
}

// problemOut is an item of POST status that changed nothing.
type problemOut struct {
	Index int    `json:"index"`
	Hash  string `json:"hash"`
	Error string `json:"error"`
}

// faultOut is the answer to a request that was refused as a whole.
type faultOut struct {
	Error string `json:"error"`
	Code  string `json:"code,omitempty"`
	Limit *int64 `json:"limit,omitempty"`
	Used  *int64 `json:"used,omitempty"`
}

// encode writes JSON without touching <, > and &.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // the types above can be encoded
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
