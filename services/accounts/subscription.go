package accounts

import (
	"errors"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

// ParseSubscription reads "active", "none", or the last day of a subscription
// as in 2026-12-31, which is good until the end of that day in UTC.
func ParseSubscription(text string) (streams.Subscription, error) {
	switch text {
	case "active":
		return streams.Subscription{}, nil
	case "none":
		return streams.Subscription{None: true}, nil
	}
	last, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return streams.Subscription{}, errors.New("subscription: want active, none or a last day as in 2026-12-31")
	}
	return streams.Subscription{Until: last.AddDate(0, 0, 1)}, nil
}

// FormatSubscription writes what ParseSubscription reads.
func FormatSubscription(s streams.Subscription) string {
	switch {
	case s.None:
		return "none"
	case s.Until.IsZero():
		return "active"
	default:
		return s.Until.UTC().Add(-1).Format(time.DateOnly)
	}
}
