package event_test

import (
	"fmt"
	"testing"

	"github.com/trunkline-sms/trunkline/streams/event"
)

// FuzzDecode holds for every kind that what can be read is written and read again as the same, and that a refusal tells
// nothing of what it refuses.
func FuzzDecode(f *testing.F) {
	for e := range examples {
		data, err := event.Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, seed := range []string{`{"id":"1"}`, `{"text":5,"text":"a"}`, `{"messages":[null,{"round":-1}]}`, `{"answer":null}`, `null`, `{"at":"9999-12-31T23:59:59.999999999-23:59"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		again[event.Enqueued](t, data)
		again[event.Keyed](t, data)
		again[event.Barrier](t, data)
		again[event.Leased](t, data)
		again[event.Renewed](t, data)
		again[event.Lapsed](t, data)
		again[event.Cancelled](t, data)
		again[event.Requeued](t, data)
		again[event.Reported](t, data)
		again[event.Horizon](t, data)
	})
}

// again reads, writes and reads an event.
func again[E event.Event](t *testing.T, data []byte) {
	t.Helper()
	e, err := event.Decode[E](data)
	if err != nil {
		if want := fmt.Sprintf("decode %s: not the JSON of this kind", e.Kind()); err.Error() != want {
			t.Errorf("got error %q, want %q", err, want)
		}
		return
	}
	written, err := event.Encode(e)
	if err != nil {
		t.Fatalf("%s was read and cannot be written: %v", e.Kind(), err)
	}
	back, err := event.Decode[E](written)
	if err != nil {
		t.Fatalf("%s is written as what cannot be read: %v", e.Kind(), err)
	}
	if rewritten, err := event.Encode(back); err != nil || string(rewritten) != string(written) {
		t.Fatalf("%s is written as %s, and that again as %s, %v", e.Kind(), written, rewritten, err)
	}
}
