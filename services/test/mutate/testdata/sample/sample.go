// Package sample is changed by the tests of mutate.
package sample

import (
	"errors"
	"time"
)

const most = 3

// Small says whether n is small.
func Small(n int) bool { return n < most }

// Both says whether both hold.
func Both(a, b bool) bool { return a && b }

// Sum adds what is positive.
func Sum(all []int64) (sum int64) {
	for _, n := range all {
		if n > 0 {
			sum += n
		}
	}
	return sum
}

// Count counts to n.
func Count(n int) int {
	i := 0
	for i < n {
		i++
	}
	return i
}

// Must fails for what is negative.
func Must(n int) int {
	if n < 0 {
		panic("negative")
	}
	return n
}

// Check fails where Must does.
func Check(n int) error {
	if n < 0 {
		return errors.New("negative")
	}
	return nil
}

// Unused is reached by no test.
func Unused() time.Duration { return time.Second }

// Ends never returns by its end.
func Ends(n int) string {
	switch {
	case n == 0:
		return "none"
	default:
		panic("some")
	}
}

// Half fails for what is odd.
func Half(n int) (int, error) {
	if n%2 != 0 {
		return 0, errors.New("odd")
	}
	return n / 2, nil
}
