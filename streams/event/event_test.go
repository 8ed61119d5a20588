package event_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

var update = flag.Bool("update", false, "write the golden files")

var at = time.Date(2026, 11, 21, 6, 0, 0, 123e6, time.UTC)

// one of every kind; the golden bytes of each must decode for ever.
var examples = map[event.Event]func([]byte) (event.Event, error){}

func init() {
	add(&event.Enqueued{ID: 0x1a, Phone: "+1234567890", Text: "Hello, <this> is a \"test\" – ünïcode", Month: "2026-11", Grant: "42-7"})
	add(&event.Scheduled{Lane: streams.Lane{Target: 0x3a, Priority: streams.High, Class: streams.Other}, Enqueued: event.Enqueued{
		ID: 0x1a, Group: 0x1a, Name: "order-77", Until: at.Add(2 * time.Hour), Due: at.Add(time.Hour), Phone: "+1234567890",
		Data: "aGVsbG8=", Port: 53739, Encrypted: true, SIM: 2, NoReceipt: true, Priority: 127, Month: "2026-11",
	}})
	add(&event.Keyed{Request: strings.Repeat("ab", 32), Messages: []streams.MessageID{0x1a, 0x1b}, Answer: json.RawMessage(`{"ok":true}`)})
	add(&event.Barrier{Claim: 42})
	add(&event.Fence{By: "PM7BQxBR9DyDSGyTkjcAzw"})
	add(&event.Reserved{By: "PM7BQxBR9DyDSGyTkjcAzw", Before: at})
	add(&event.Leased{Lease: 0x2a, Device: 0x3a, Name: "Pixel", At: at, Until: at.Add(10 * time.Minute), Policy: streams.Retry, Attempts: 3,
		Messages: []event.Attempt{{ID: 0x1a, Round: 0}, {ID: 0x1b, Round: 1}}})
	add(&event.Renewed{At: at, Leases: []event.Renewal{{Lease: 0x2a, Until: at.Add(time.Hour)}}})
	add(&event.Lapsed{At: at, Lease: 0x2a, Messages: []event.Lapse{{ID: 0x1a, To: streams.Pending}, {ID: 0x1b, Round: 1, To: streams.Failed}, {ID: 0x1c, To: streams.Leased}}})
	add(&event.Cancelled{At: at, Messages: []event.Attempt{{ID: 0x1a, Round: 2}}})
	add(&event.Expired{At: at, Messages: []event.Attempt{{ID: 0x1a, Round: 2}}})
	add(&event.Requeued{At: at, Messages: []event.Attempt{{ID: 0x1a, Round: 2}}})
	add(&event.Reported{Device: 0x3a, Name: "Pixel", Messages: []event.Report{{ID: 0x1a, State: streams.Delivered}, {ID: 0x1b, State: streams.Failed, Error: "RESULT_ERROR_NO_SERVICE"}}})
	add(&event.Horizon{Before: at})
}

func add[E any, P interface {
	*E
	event.Event
}](e P) {
	examples[e] = func(data []byte) (event.Event, error) {
		var got E
		err := json.Unmarshal(data, &got)
		return P(&got), err
	}
}

func TestBytesAreGolden(t *testing.T) {
	for e, decode := range examples {
		t.Run(string(e.Kind()), func(t *testing.T) {
			got, err := event.Encode(e)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", string(e.Kind())+".json")
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimSuffix(string(want), "\n"), string(got)); diff != "" {
				t.Errorf("the bytes of %s changed, but events are for ever:\n%s", e.Kind(), diff)
			}
			back, err := decode(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e, back, cmp.Comparer(func(a, b event.Private) bool { return a == b })); diff != "" {
				t.Errorf("the golden bytes decode to something else:\n%s", diff)
			}
		})
	}
}

// Events that were written while <, > and & were escaped are read as ever, and no event is written so any more.
func TestEscapedEventsAreRead(t *testing.T) {
	old, err := os.ReadFile("testdata/escaped/message.enqueued.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := event.Decode[event.Enqueued](old)
	if err != nil || got.Text.Reveal() != "Hello, <this> is a \"test\" – ünïcode" {
		t.Errorf("got %q, %v", got.Text.Reveal(), err)
	}
	for text, want := range map[string]int{"<": 1, "&>": 2, "\u2028": 6, "\x01": 6, "\"": 2, "ü": 2} {
		with, errWith := event.Encode(event.Enqueued{Text: event.Private(text)})
		without, errWithout := event.Encode(event.Enqueued{})
		if errWith != nil || errWithout != nil || len(with)-len(without) != want || event.TextSize(text) != want {
			t.Errorf("%q takes %d bytes, and is said to take %d, want %d", text, len(with)-len(without), event.TextSize(text), want)
		}
	}
}

func TestPrivateDoesNotPrint(t *testing.T) {
	e := event.Enqueued{Phone: "+1234567890", Text: "secret-text-1"}
	asJSON, _ := json.Marshal(e)
	for _, printed := range []string{
		fmt.Sprint(e), fmt.Sprintf("%+v", e), fmt.Sprintf("%#v", e), fmt.Sprintf("%s %q %x", e.Text, e.Phone, e.Text), string(asJSON),
	} {
		if strings.Contains(printed, "secret") || strings.Contains(printed, "1234567890") || strings.Contains(printed, "736563726574") {
			t.Errorf("printed %s", printed)
		}
	}
	if _, err := event.Decode[event.Enqueued]([]byte(`{"text":"secret-text`)); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got error %v, want one without the text", err)
	}
}

func TestDecodeIgnoresFieldsOfLaterVersions(t *testing.T) {
	got, err := event.Decode[event.Barrier]([]byte(`{"claim":7,"colour":"blue"}`))
	if err != nil || got.Claim != 7 {
		t.Errorf("got %v, %v", got, err)
	}
}
