package state

import (
	"time"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// Timed is a message of an account in an index by time.
type Timed struct {
	Account streams.AccountID
	ID      streams.MessageID
}

// Invalid lists up to most messages that have not ended although their validity is
// over, the earliest first. It also gives when the next validity is over: next if
// none is before that.
func (v View) Invalid(now, next time.Time, most int) ([]Timed, time.Time) {
	var all []Timed
	eachKey(v.bucket(validBucket), nil, func(key, _ []byte) bool {
		at := fromMillis(id(key, 0))
		if at.After(now) {
			next = clock.Earlier(next, at)
			return false
		}
		all = append(all, Timed{streams.AccountID(id(key, 1)), streams.MessageID(id(key, 2))})
		return len(all) < most
	})
	return all, next
}

// Expire is the decision that ends those of the messages whose validity is over;
// nil if there are none.
func (a Account) Expire(messages []streams.MessageID, now time.Time) (event.Event, error) {
	e := event.Expired{At: now}
	for _, m := range messages {
		r, _, err := a.record(m)
		if err != nil {
			return nil, err
		}
		if r.expired(e.At) && !r.state.Terminal() {
			e.Messages = append(e.Messages, event.Attempt{ID: m, Round: r.round})
		}
	}
	if len(e.Messages) == 0 {
		return nil, nil
	}
	return e, nil
}

// Due is a scheduled message whose time has come.
type Due struct {
	Account streams.AccountID
	Place
}

const (
	// Limit: scheduled messages are enqueued in turns of the accounts that are found among the 100,000 earliest due
	// times. Messages of one account that are due at the same millisecond are one such time. Beyond it: messages that
	// are due later wait until earlier ones are enqueued.
	// Used up by: an account with messages at so many different times that are all due, as after a long stop.
	// Hurts: accounts whose messages are due later: they go out late. Test: TestReleasesTakeTurns.
	accountsLooked = 100_000
	// retryAfter is when scheduled messages are looked at again whose validity is over too. They expire before that.
	retryAfter = time.Second
)

// Due lists up to most scheduled messages that are due. The accounts alternate,
// and of each the earliest come first: an account with many messages that are due
// at once does not keep those of others waiting. Due also gives when the next
// message is due: next if none is before that.
func (v View) Due(now, next time.Time, most int) ([]Due, time.Time, error) {
	accounts, next := v.dueAccounts(now, next)
	if len(accounts) == 0 {
		return nil, next, nil
	}
	each := max(most/len(accounts), 1)
	var lists [][]Due
	longest, total := 0, 0
	for _, one := range accounts {
		list, err := v.dueOf(one, now, min(each, most-total))
		if err != nil {
			return nil, next, err
		}
		longest, total = max(longest, len(list)), total+len(list)
		lists = append(lists, list)
	}
	if total == 0 {
		next = clock.Earlier(next, now.Add(retryAfter)) // their validity is ended first
	}
	all := make([]Due, 0, total)
	for i := range longest {
		for _, list := range lists {
			if i < len(list) {
				all = append(all, list[i])
			}
		}
	}
	return all, next, nil
}

// dueTimes are when messages of an account are due, the earliest first.
type dueTimes struct {
	account streams.AccountID
	times   []uint64 // milliseconds
}

// dueAccounts finds the accounts that have messages that are due, the earliest
// first. It costs one seek for each account and time.
func (v View) dueAccounts(now, next time.Time) (all []*dueTimes, _ time.Time) {
	found := map[streams.AccountID]*dueTimes{}
	c := v.bucket(scheduledBucket).Cursor()
	key, _ := c.First()
	for range accountsLooked {
		if key == nil {
			break
		}
		at, account := id(key, 0), id(key, 1)
		if fromMillis(at).After(now) {
			return all, clock.Earlier(next, fromMillis(at))
		}
		a := streams.AccountID(account)
		if found[a] == nil {
			found[a] = &dueTimes{account: a}
			all = append(all, found[a])
		}
		found[a].times = append(found[a].times, at)
		if account == 1<<64-1 {
			key, _ = c.Seek(key8(at + 1))
		} else {
			key, _ = c.Seek(key8(at, account+1))
		}
	}
	return all, next
}

// dueOf lists up to so many of an account, without those whose validity is over.
func (v View) dueOf(of *dueTimes, now time.Time, most int) (all []Due, err error) {
	a := v.Account(of.account)
	for _, at := range of.times {
		if len(all) >= most || err != nil {
			break
		}
		eachKey(v.bucket(scheduledBucket), key8(at, uint64(of.account)), func(key, _ []byte) bool {
			m := streams.MessageID(id(key, 2))
			r, _, failed := a.record(m)
			if err = failed; err == nil && !r.expired(now) {
				all = append(all, Due{of.account, Place{ID: m, Seq: r.seq}})
			}
			return err == nil && len(all) < most
		})
	}
	return all, err
}
