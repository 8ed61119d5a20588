package sample

import "testing"

func TestSmall(t *testing.T) {
	if !Small(2) || Small(3) {
		t.Error("2 is small, and 3 is not")
	}
}

func TestBoth(t *testing.T) {
	if !Both(true, true) || Both(false, true) { // it does not notice what b does
		t.Error("both")
	}
}

func TestSum(t *testing.T) {
	if got := Sum([]int64{1, 2, -3}); got != 3 {
		t.Errorf("got %d", got)
	}
}

func TestCount(t *testing.T) {
	if got := Count(5); got != 5 {
		t.Errorf("got %d", got)
	}
}

func TestCheck(t *testing.T) {
	if Check(-1) == nil || Check(0) != nil {
		t.Error("check")
	}
	Must(1)
}

func TestHalf(t *testing.T) {
	if got, err := Half(6); err != nil || got != 3 {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := Half(3); err == nil {
		t.Error("3 is odd")
	}
}
