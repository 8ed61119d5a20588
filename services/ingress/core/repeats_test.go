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

// A report is known for a minute, to the moment, and what it said counts.
func TestRepeats_Remembers(t *testing.T) {
	r, begun := newRepeats(), time.Now()
	one := said{Report: event.Report{ID: 1, State: streams.Sent}}
	other := said{Report: event.Report{ID: 1, State: streams.Delivered}}
	never := said{Report: event.Report{ID: 2}} // whose state is that of a word that was never said
	r.remember(7, []said{one}, begun)
	for _, step := range []struct {
		after  time.Duration
		stored bool
	}{{0, true}, {repeatWithin - 1, true}, {repeatWithin, false}, {2 * repeatWithin, false}} {
		now := begun.Add(step.after)
		if got := r.stored(7, one, now); got != step.stored {
			t.Errorf("after %v: got %t, want %t", step.after, got, step.stored)
		}
		if r.stored(7, other, now) || r.stored(7, never, now) || r.stored(8, one, now) {
			t.Errorf("after %v: what was not said is taken for stored", step.after)
		}
	}
	// What was said before the last two minutes began is not kept at all.
	r.remember(7, []said{one}, begun.Add(4*repeatWithin))
	r.stored(7, one, begun.Add(6*repeatWithin))
	if kept := r.accounts[7]; len(kept.recent)+len(kept.before) != 0 || r.recalled != 0 {
		t.Errorf("got %d and %d reports kept, counted as %d, want none", len(kept.recent), len(kept.before), r.recalled)
	}
}

// Reports that change nothing use an account's share up, one each, and it comes back through the day.
func TestRepeats_Share(t *testing.T) {
	r, now := newRepeats(), time.Now()
	again := func(id int) bool {
		return r.again(7, said{Report: event.Report{ID: streams.MessageID(id), State: streams.Sent}}, now)
	}
	for i := range maxIdle {
		if !again(i) {
			t.Fatalf("report %d was refused", i)
		}
	}
	if again(maxIdle) {
		t.Error("one more than its share was stored")
	}
	if now = now.Add(-time.Hour); again(maxIdle) {
		t.Error("its share came back when the clock went back")
	}
	if now = now.Add(time.Hour + 24*time.Hour/maxIdle + time.Millisecond); !again(maxIdle) {
		t.Error("its share does not come back")
	}
	if again(maxIdle + 1) {
		t.Error("more of it came back than of that time")
	}
}
