// Package testkit is how tests of several packages wait. Other parts of tests are in the folders below it.
package testkit

import (
	"testing"
	"time"
)

// Patience is how long a test waits for something until it fails. It is far more than anything takes, even on a busy
// machine: only a test that fails waits that long.
const Patience = 3 * time.Minute

// Eventually returns once done is true, and fails the test after Patience. It calls done again and again, in the
// goroutine of the test. Use it only where there is no sequence or event to wait for.
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
