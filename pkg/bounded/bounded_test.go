package bounded_test

import (
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/bounded"
)

func TestPut(t *testing.T) {
	all := map[int]string{}
	for i := range 10 {
		bounded.Put(all, 3, i, "first")
		if got := all[i]; got != "first" || len(all) > 3 {
			t.Fatalf("got %q under the new key of %d, want the value under one of 3", got, len(all))
		}
	}
	for key := range all {
		bounded.Put(all, 3, key, "second")
	}
	for key, value := range all {
		if value != "second" || len(all) != 3 {
			t.Errorf("got %q under %d of %d, want another value and none forgotten", value, key, len(all))
		}
	}
}

// Of keys that come in turns, a tenth more than there is room for, most are remembered.
func TestPut_InTurns(t *testing.T) {
	const most, keys, rounds = 1000, 1100, 20
	all := map[int]bool{}
	hits := 0
	for range rounds {
		for key := range keys {
			if all[key] {
				hits++
			}
			bounded.Put(all, most, key, true)
		}
	}
	t.Logf("%d %% remembered", 100*hits/(keys*rounds))
	if hits < keys*rounds/2 {
		t.Errorf("got %d of %d remembered, want more than half", hits, keys*rounds)
	}
}
