package state

import (
	"fmt"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// Kept is how long a message and its events are known.
//
// Limit: a message is known for 30 days after it was accepted. Beyond it: look-ups, pulls and reports do not find it.
// Used up by: every message, by age. Hurts: only those who ask for an older one.
// Test: TestMessagesAreForgotten.
const Kept = 30 * 24 * time.Hour

// HorizonMadeAt is when a horizon event was made. An event of an earlier version
// does not say it. It was made when the horizon that it names was Kept ago, and the
// engine stored it then, by a clock that may have been behind: so the later of the
// two times counts.
func HorizonMadeAt(e event.Horizon, stored time.Time) time.Time {
	if e.At.IsZero() {
		return clock.Later(stored, e.Before.Add(Kept))
	}
	return e.At
}

// moveHorizon drops everything from before the horizon: messages by the time in
// their ids, and fences of decisions by the time at which they were stored. That
// may come from a clock that was ahead: a fence was stored no later than the
// horizon event was made.
func (w *writer) moveHorizon(e event.Horizon) error {
	if horizon, _ := w.Horizon(); !e.Before.After(horizon) {
		return nil
	}
	made := HorizonMadeAt(e, w.at)
	if err := w.bucket(metaBucket).Put(horizonKey, key8(millis(e.Before), w.seq)); err != nil {
		return fmt.Errorf("write horizon: %w", err)
	}
	if err := w.dropDays(e.Before, made); err != nil {
		return err
	}
	oldest := streams.FirstIDAt(e.Before)
	var accounts []streams.AccountID
	eachAccount(w.bucket(messagesBucket), func(a streams.AccountID) bool {
		accounts = append(accounts, a)
		return true
	})
	for _, w.account = range accounts {
		if err := w.dropBefore(oldest); err != nil {
			return err
		}
	}
	b := w.bucket(decisionsBucket)
	var stale [][]byte
	ahead := map[string]uint64{}
	eachKey(b, nil, func(key, value []byte) bool {
		switch at := min(id(value, 1), millis(made)); {
		case at < millis(e.Before):
			stale = append(stale, append([]byte(nil), key...))
		case at < id(value, 1):
			ahead[string(key)] = id(value, 0)
		}
		return true
	})
	for key, seq := range ahead {
		if err := b.Put([]byte(key), key8(seq, millis(made))); err != nil {
			return fmt.Errorf("write decision: %w", err)
		}
	}
	for _, key := range stale {
		if err := b.Delete(key); err != nil {
			return fmt.Errorf("drop decision: %w", err)
		}
	}
	return nil
}

// dropBefore drops the account's messages older than that.
func (w *writer) dropBefore(oldest streams.MessageID) error {
	var old []streams.MessageID
	eachKey(w.bucket(messagesBucket), key8(uint64(w.account)), func(key, _ []byte) bool {
		m := streams.MessageID(id(key, 1))
		if m < oldest {
			old = append(old, m)
		}
		return m < oldest
	})
	for _, m := range old {
		r, _, err := w.record(m)
		if err != nil {
			return err
		}
		if err := w.bucket(messagesBucket).Delete(messageKey(w.account, m)); err != nil {
			return fmt.Errorf("drop message %s: %w", m, err)
		}
		if err := w.reindex(m, &r, nil); err != nil {
			return err
		}
	}
	return nil
}
