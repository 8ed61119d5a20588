package httpx

import (
	"bytes"
	"encoding/json"
)

// JSON writes v without touching <, > and &, and without a line's end. It panics on what cannot be encoded: what a
// dialect answers are types of its own.
func JSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
