package quota

import (
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// A scheduled message counts when it is accepted, in the month of then, and not when it is due.
func TestScheduledMessagesCountOnce(t *testing.T) {
	account := streams.AccountIDOf("shop")
	accepted := time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC)
	message := event.Enqueued{ID: 1, Due: accepted.Add(2 * time.Hour), Text: "released", Month: "2026-11", Grant: "42-7"}
	released := message
	released.Released = true
	for _, test := range []struct {
		subject string
		e       event.Event
		at      time.Time
		counts  bool
	}{
		{streams.ScheduledSubject(0, account), event.Scheduled{Enqueued: message}, accepted, true},
		{streams.EnqueueSubject(0, account, streams.Lane{}), released, message.Due, false},
		{streams.EnqueueSubject(0, account, streams.Lane{}), message, accepted, true},
	} {
		data, err := event.Encode(test.e)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := readCounted(projection.Event{Subject: test.subject, Kind: string(test.e.Kind()), Time: test.at, Data: data})
		if ok != test.counts || ok && (got.account != account || got.month != "2026-11" || got.grant != "42-7") {
			t.Errorf("%s: got %+v, %v", test.subject, got, ok)
		}
	}
}
