// Package testkit is what tests of several packages wait with. What else they are made with is in the folders below it.
package testkit

import (
	"testing"
	"time"
)

// Patience is after how long something that should have happened long ago counts as a failure. It is far more than
// anything takes on a machine that others keep busy: only a test that fails waits as long.
const Patience = 3 * time.Minute

// Eventually returns once done says so, and fails the test after Patience. It asks again and again, for what tells nobody
// when it happens; where there is a sequence or an event to wait for, wait for that. done runs in the test's goroutine.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	EventuallyWithin(t, Patience, what, done)
}

// EventuallyWithin is Eventually with another patience.
func EventuallyWithin(t testing.TB, patience time.Duration, what string, done func() bool) {
	t.Helper()
	over := time.NewTimer(patience)
	defer over.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-over.C:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
