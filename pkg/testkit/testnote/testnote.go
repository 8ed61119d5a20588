// Package testnote writes notes of tests where `make test` shows them: go test does not
// show the output of tests that pass.
package testnote

import (
	"fmt"
	"os"
	"testing"
)

// Skip skips a test, and notes why.
func Skip(t testing.TB, reason string) {
	t.Helper()
	note("SKIPPED", t, reason)
	t.Skip("SKIPPED: " + reason)
}

// Count notes how much a test has done.
func Count(t testing.TB, format string, args ...any) {
	t.Helper()
	done := fmt.Sprintf(format, args...)
	note("COUNTED", t, done)
	t.Log(done)
}

func note(what string, t testing.TB, text string) {
	path := os.Getenv("TRUNKLINE_TEST_LOG")
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // the path is make's
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := fmt.Fprintf(file, "%s %s: %s\n", what, t.Name(), text); err != nil {
		t.Fatal(err)
	}
}
