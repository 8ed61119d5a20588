package smsgate

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

const codeBody = "invalid_body"

var (
	errJSON    = fault.New(fault.Invalid, codeBody, "failed to parse body: it is not valid JSON")
	errUnicode = fault.New(fault.Invalid, codeBody, "failed to parse body: it is not valid Unicode")
	errObject  = fault.New(fault.Invalid, codeBody, "failed to parse body: it is not a JSON object")
)

// decode reads a body, which is an object. The decoder's own text may quote it, so it is not passed on.
func decode(body []byte, to any) error {
	if !utf8.Valid(body) {
		return errUnicode
	}
	err := json.Unmarshal(body, to)
	var other *json.UnmarshalTypeError
	switch {
	case errors.As(err, &other) && other.Field != "": // one of ours
		return fault.New(fault.Invalid, codeBody, "failed to parse body: "+other.Field+" has the wrong type")
	case err != nil && other == nil:
		return errJSON
	case bytes.TrimLeft(body, " \t\r\n")[0] != '{':
		return errObject
	case err != nil:
		return errJSON
	case httpx.HasHalf(body):
		return errUnicode
	}
	return nil
}

// maxTexts is how many items of a list are read; one more says that there are too many. A body of 4 MiB has room
// for a million.
//
// Limit: a message goes to at most 100 numbers, no two of them the same. Beyond it: 400.
// Used up by: one request. Hurts: that request alone. Test: TestParseSend_Rules.
const maxTexts = 100

// texts is an array of texts. Null in it stands for none.
type texts []string

// UnmarshalJSON reads an array of texts, up to one more than maxTexts.
func (t *texts) UnmarshalJSON(raw []byte) error {
	*t = nil
	switch raw[0] {
	case 'n':
		return nil
	case '[':
	default:
		return &json.UnmarshalTypeError{}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	_, err := d.Token() // the bracket
	for err == nil && d.More() && len(*t) <= maxTexts {
		var one string
		err = d.Decode(&one)
		*t = append(*t, one)
	}
	return err
}
