package access

import (
	"strings"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// Each mark stays in the bucket for streams.SessionTTL. Renewals may not use up what is needed to end sessions.
	//
	// Limit: an account has 20,000 marks of renewed and ended sessions in 30 days. Renewing a session makes one, ending
	// one makes two, and renewals have at most half. Beyond it: 429 `too_many_sessions` with Retry-After.
	// Used up by: one account. Hurts: only that account: its sessions cannot be renewed or ended then.
	// Test: TestSessions_TooMany.
	maxMarks = 20_000
	// marksComeBack is when to try again: some marks expire every day.
	marksComeBack = time.Hour
)

var errMarks = &fault.Error{
	Kind: fault.RateLimited, Code: "too_many_sessions", Text: "Too many sessions of this account were renewed or ended in the last 30 days",
	RetryAfter: marksComeBack,
}

// marks count the marks of each account in the sessions bucket, by day. The bucket does not tell when it removes a mark that
// has expired, so the days do. Callers hold the sessions' lock.
type marks map[string]map[int]int

// note counts the mark under a key, which is kind, account and session.
func (m marks) note(key string, at time.Time) {
	_, rest, _ := strings.Cut(key, ".")
	owner, _, _ := strings.Cut(rest, ".")
	days := m[owner]
	if days == nil {
		days = map[int]int{}
		m[owner] = days
	}
	today := dayOf(at)
	if days[today]++; days[today] == 1 {
		for day := range days {
			if over(day, today) {
				delete(days, day)
			}
		}
	}
}

func over(day, today int) bool { return today-day > int(streams.SessionTTL/(24*time.Hour)) }

// of counts the marks of an account that have not expired.
func (m marks) of(account streams.AccountID, now time.Time) (n int) {
	for day, count := range m[account.String()] {
		if !over(day, dayOf(now)) {
			n += count
		}
	}
	return n
}

// mayMark is a fault if an account has so many marks already.
func (s *sessions) mayMark(account streams.AccountID, most int, now time.Time) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.marks.of(account, now) >= most {
		return errMarks
	}
	return nil
}
