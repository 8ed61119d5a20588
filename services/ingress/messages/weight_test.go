package messages

import (
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// A weight is told before anything is made, and covers what is made of any text and any number of messages.
func TestWeight(t *testing.T) {
	for name, text := range map[string]string{
		"none": "", "short": "a", "markup": strings.Repeat("<&>", 10_000), "quotes": strings.Repeat(`"\\`, 10_000),
		"control characters": strings.Repeat("\x01\n", 10_000), "separators": strings.Repeat("\u2028", 10_000), "letters": strings.Repeat("ü€😀", 1000),
	} {
		for _, n := range []int{1, 100, MaxDrafts} {
			drafts := make([]Draft, n)
			made := 0
			for i := range drafts {
				drafts[i] = Draft{Content: Content{Phone: "+4915112345678", Text: event.Private(text), Data: event.Private(text)}}
				data, err := event.Encode(event.Enqueued{
					ID: 1 << 60, Group: 1 << 60, Phone: drafts[i].Phone, Text: drafts[i].Text, Data: drafts[i].Data, Month: "2026-11", Grant: "123456-7890",
				})
				if err != nil {
					t.Fatal(err)
				}
				made += len(data) + len(streams.EnqueueSubject(0, 1, drafts[i].Lane))
			}
			if got := int(Weight(drafts)); got < made || got > made+n*perMessage {
				t.Errorf("%d messages of %s weigh %d bytes, and %d are made of them", n, name, got, made)
			}
		}
	}
}
