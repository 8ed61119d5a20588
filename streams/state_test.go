package streams_test

import (
	"slices"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

func TestStates(t *testing.T) {
	for state, want := range map[streams.State]struct {
		name              string
		code              int
		success, terminal bool
	}{
		streams.Scheduled: {"scheduled", 0, false, false},
		streams.Pending:   {"pending", 0, false, false},
		streams.Leased:    {"leased", 1, false, false},
		streams.Failed:    {"failed", 3, false, true},
		streams.Expired:   {"expired", 3, false, true},
		streams.Cancelled: {"cancelled", 3, false, true},
		streams.Sent:      {"sent", 2, true, true},
		streams.Delivered: {"delivered", 2, true, true},
	} {
		if state.String() != want.name || state.Code() != want.code || state.Success() != want.success || state.Terminal() != want.terminal {
			t.Errorf("%s: got code %d, success %t, terminal %t, want %+v", state, state.Code(), state.Success(), state.Terminal(), want)
		}
		text, err := state.MarshalText()
		if err != nil || string(text) != want.name {
			t.Errorf("%s is written %q, %v", state, text, err)
		}
		var back streams.State
		if err := back.UnmarshalText(text); err != nil || back != state {
			t.Errorf("%q is read as %s, %v", text, back, err)
		}
		if !slices.Contains(streams.States(), state) {
			t.Errorf("%s is not listed", state)
		}
	}
	if got := len(streams.States()); got != 8 {
		t.Errorf("got %d states, want 8", got)
	}
	const none = streams.Delivered + 1
	if _, err := none.MarshalText(); err == nil || none.String() != "unknown" {
		t.Errorf("state %d is written %q without an error", none, none)
	}
	var s streams.State
	if err := s.UnmarshalText([]byte("Sent")); err == nil {
		t.Error("Sent is no state, but gave no error")
	}
}

func TestTogether(t *testing.T) {
	const scheduled, pending, leased, failed, expired, cancelled, sent, delivered = streams.Scheduled, streams.Pending, streams.Leased,
		streams.Failed, streams.Expired, streams.Cancelled, streams.Sent, streams.Delivered
	for _, test := range []struct {
		states []streams.State
		want   streams.State
	}{
		{[]streams.State{delivered, pending, scheduled, cancelled, leased, failed}, pending},
		{[]streams.State{delivered, scheduled, cancelled, leased, failed}, scheduled},
		{[]streams.State{delivered, cancelled, leased, failed}, cancelled},
		{[]streams.State{delivered, leased, failed, sent}, leased},
		{[]streams.State{expired, expired}, expired},
		{[]streams.State{expired, failed}, failed},
		{[]streams.State{failed, failed}, failed},
		{[]streams.State{failed, delivered}, sent},
		{[]streams.State{expired, delivered}, sent},
		{[]streams.State{sent, delivered}, sent},
		{[]streams.State{delivered, delivered}, delivered},
	} {
		if got := streams.Together(test.states); got != test.want {
			t.Errorf("%v: got %s, want %s", test.states, got, test.want)
		}
	}
}

func TestSubscription(t *testing.T) {
	end := streams.Epoch.Add(time.Hour)
	for name, test := range map[string]struct {
		subscription streams.Subscription
		at           time.Time
		want         bool
	}{
		"without end":  {streams.Subscription{}, end, true},
		"none":         {streams.Subscription{None: true}, end, false},
		"none and end": {streams.Subscription{None: true, Until: end}, end.Add(-1), false},
		"before":       {streams.Subscription{Until: end}, end.Add(-1), true},
		"at its end":   {streams.Subscription{Until: end}, end, false},
	} {
		if got := test.subscription.Active(test.at); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
	}
}
