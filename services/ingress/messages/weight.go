package messages

import "github.com/trunkline-sms/trunkline/streams/event"

// perMessage is what a message takes in memory while it is stored, beside what it says: its draft, the fixed part of its
// event, and the message of the engine that carries it. Used up by an account with large requests, in its
// share of what is under way: only its own are refused.
const perMessage = 1 << 10 // bytes

// Weight is how many bytes of memory it takes to store drafts. It is told before any of that is made: a hundred
// recipients of one text are a hundred events that have it.
func Weight(drafts []Draft) int64 {
	sum := 0
	var said Content
	size := 0
	for _, d := range drafts {
		if d.Text != said.Text || d.Data != said.Data { // most requests say one thing, or each of their messages another
			said, size = d.Content, event.TextSize(d.Text.Reveal())+event.TextSize(d.Data.Reveal())
		}
		sum += perMessage + event.TextSize(d.Phone.Reveal()) + size
	}
	return int64(sum)
}
