package core

import (
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// What is remembered is bounded, of an account and of all, and ends.
func TestRepeats_Bounded(t *testing.T) {
	r, now := newRepeats(), time.Now()
	some := func(n, from int) []said {
		all := make([]said, n)
		for i := range all {
			all[i] = said{Report: event.Report{ID: streams.MessageID(from + i), State: streams.Delivered}}
		}
		return all
	}
	remembered := func() (n int) {
		for _, t := range r.accounts {
			n += len(t.recent) + len(t.before)
		}
		return n
	}
	for i := range 2 * maxRecalled / 1000 {
		r.remember(1, some(1000, i*1000), now)
	}
	if got := remembered(); got != maxRecalled || got != r.recalled {
		t.Errorf("of one account: %d, counted as %d, want %d", got, r.recalled, maxRecalled)
	}
	for a := range streams.AccountID(30) {
		now = now.Add(time.Second)
		for i := range maxRecalled / 1000 {
			r.remember(a+2, some(1000, i*1000), now)
		}
	}
	if got := remembered(); got != maxRecalledAll || got != r.recalled {
		t.Errorf("of all: %d, counted as %d, want %d", got, r.recalled, maxRecalledAll)
	}
	if r.take(2, some(1, 5), now) || !r.take(31, some(1, 5), now) {
		t.Error("what had room is to be known, and what had none is not")
	}
	for range 4 {
		now = now.Add(repeatWithin)
		r.stored(9999, some(1, 1)[0], now)
	}
	if got := remembered(); got != 0 || r.recalled != 0 {
		t.Errorf("later: %d, counted as %d, want none", got, r.recalled)
	}
	now = now.Add(24 * time.Hour)
	r.stored(9999, some(1, 1)[0], now)
	if got := len(r.accounts); got > 1 {
		t.Errorf("%d accounts are remembered", got)
	}
}
