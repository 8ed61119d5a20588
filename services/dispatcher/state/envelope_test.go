package state

import (
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// sample is an event with a value in each field.
var sample = event.Enqueued{
	ID: streams.FirstIDAt(began), Group: streams.FirstIDAt(began), Name: "order \"7\"", Until: began.Add(72 * time.Hour), Due: began, Released: true,
	Phone: "+40700000000", Text: "secret-text-1 \u20ac\n", Data: "aGVsbG8=", Port: 1234, Encrypted: true, SIM: 2, NoReceipt: true, Priority: -3,
	Month: "2026-11", Grant: "g-1",
}

func encoded(t testing.TB, e event.Event) []byte {
	t.Helper()
	data, err := event.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sameAsDecoded holds CheckEnvelope to what a decoder makes of the same bytes.
func sameAsDecoded(t *testing.T, data []byte) {
	t.Helper()
	want, wrong := event.Decode[event.Enqueued](data)
	got, err := CheckEnvelope(data)
	if (err == nil) != (wrong == nil) {
		t.Fatalf("%q: got %v, the decoder %v", data, err, wrong)
	}
	if err == nil && (got.ID != want.ID || got.Group != want.Group || got.Name != want.Name || !got.Until.Equal(want.Until) || !got.Due.Equal(want.Due) || got.Released != want.Released) {
		t.Fatalf("%q: got %+v, the decoder %+v", data, got, want)
	}
}

// Whatever bit of an event is another one, and wherever it ends, it is damaged exactly if it cannot be decoded.
func TestCheckEnvelope_Damage(t *testing.T) {
	for _, e := range []event.Enqueued{sample, {ID: sample.ID, Phone: "+40", Text: "text", Month: "2026-11"}} {
		data := encoded(t, e)
		if _, sound := checked(data); !sound {
			t.Errorf("%s is decoded, though nothing is wrong with it", data)
		}
		for i := range data {
			sameAsDecoded(t, data[:i])
			for bit := range 8 {
				damaged := append([]byte(nil), data...)
				damaged[i] ^= 1 << bit
				sameAsDecoded(t, damaged)
			}
		}
	}
	for _, data := range []string{`{}`, `null`, `[]`, `{"id":"0000000000000001","text":5}`, `{"id":"0000000000000001","later":{}}`, `{"id":"0000000000000001","ID":"0000000000000002"}`, `{"id":"0000000000000001","sim":1.5}`, `{"id":"0000000000000001","until":null}`} {
		sameAsDecoded(t, []byte(data))
	}
}

// FuzzCheckEnvelope: of any bytes the envelope is what a decoder finds, or both find nothing.
func FuzzCheckEnvelope(f *testing.F) {
	f.Add(encoded(f, sample))
	f.Fuzz(func(t *testing.T, data []byte) { sameAsDecoded(t, data) })
}

// BenchmarkCheckEnvelope compares what a page costs for each message with decoding it whole.
func BenchmarkCheckEnvelope(b *testing.B) {
	data := encoded(b, event.Enqueued{ID: sample.ID, Phone: "+40700000000", Text: "Your order 1234 has been shipped and will arrive on Friday between 10 and 12.", Month: "2026-11"})
	b.Run("envelope", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := CheckEnvelope(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := event.Decode[event.Enqueued](data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
