package messages

import "github.com/trunkline-sms/trunkline/streams/event"

// perMessage is for a message's draft, the fixed part of its event, and the engine's message that carries it.
//
// Limit: a message counts as 1 KiB of memory while it is stored, beside its text and number.
// Used up by: an account with large requests. Hurts: only that account: it has no more memory than it leaves to others.
// Test: TestWeight.
const perMessage = 1 << 10 // bytes

// Weight is how many bytes of memory it takes to store drafts. It is known before any of that is allocated: a hundred
// recipients of one text are a hundred events that contain it.
func Weight(drafts []Draft) int64 {
	sum := 0
	var last Content
	size := 0
	for _, d := range drafts {
		if d.Text != last.Text || d.Data != last.Data { // in most requests the messages have one text, or each its own
			last, size = d.Content, event.TextSize(d.Text.Reveal())+event.TextSize(d.Data.Reveal())
		}
		sum += perMessage + event.TextSize(d.Phone.Reveal()) + size
	}
	return int64(sum)
}
