package streams_test

import (
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

func TestIDsRiseWhateverTheClockSays(t *testing.T) {
	now := streams.Epoch.Add(time.Hour)
	clock := func() time.Time { return now }
	ids := streams.NewIDs(clock, 7, time.Time{})
	last := ids.Message()
	for i := range 3 * 4096 { // three milliseconds' worth in one
		if i == 5000 {
			now = now.Add(-time.Minute)
		}
		id := ids.Message()
		if id <= last {
			t.Fatalf("id %d: %v is not after %v", i, id, last)
		}
		last = id
	}
	if got, want := last.Time(), streams.Epoch.Add(time.Hour+3*time.Millisecond); got.After(want) {
		t.Errorf("the last id's time is %v, want at most %v", got, want)
	}
}

func TestIDsStartAtTheFloor(t *testing.T) {
	floor := streams.Epoch.Add(48 * time.Hour)
	ids := streams.NewIDs(func() time.Time { return streams.Epoch }, 0, floor)
	if got := ids.Message().Time(); got.Before(floor) {
		t.Errorf("first id's time is %v, want not before %v", got, floor)
	}
}

func TestIDsAreUniqueAcrossInstancesAndGoroutines(t *testing.T) {
	clock := func() time.Time { return streams.Epoch.Add(time.Second) }
	var mu sync.Mutex
	seen := map[streams.MessageID]bool{}
	var wg sync.WaitGroup
	for _, instance := range []int{0, 1, streams.MaxInstance} {
		ids := streams.NewIDs(clock, instance, time.Time{})
		for range 4 {
			wg.Go(func() {
				for range 5000 {
					id := ids.Message()
					mu.Lock()
					if seen[id] {
						t.Errorf("%v was given twice", id)
					}
					seen[id] = true
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	if got, want := len(seen), 3*4*5000; got != want {
		t.Errorf("got %d ids, want %d", got, want)
	}
}

func TestIDText(t *testing.T) {
	id := streams.MessageID(0x0123456789abcdef)
	data, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(data), `"0123456789abcdef"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var back streams.MessageID
	if err := json.Unmarshal(data, &back); err != nil || back != id {
		t.Errorf("got %v, %v, want %v", back, err, id)
	}
	for _, bad := range []string{"", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg", "0123456789abcde "} {
		if _, err := streams.ParseMessageID(bad); err == nil {
			t.Errorf("ParseMessageID(%q) gave no error", bad)
		}
	}
}

func TestFirstIDAtIsTheLowestOfItsMillisecond(t *testing.T) {
	at := streams.Epoch.Add(12345 * time.Millisecond)
	first := streams.FirstIDAt(at)
	if got := first.Time(); !got.Equal(at) {
		t.Errorf("got %v, want %v", got, at)
	}
	if got := (first - 1).Time(); !got.Before(at) {
		t.Errorf("the id before has time %v, want before %v", got, at)
	}
	if got := streams.FirstIDAt(streams.Epoch.Add(-time.Hour)); got != 0 {
		t.Errorf("before the epoch: got %v, want none", got)
	}
}

func TestIDsNotBefore(t *testing.T) {
	now := streams.Epoch.Add(time.Hour)
	ids := streams.NewIDs(func() time.Time { return now }, 5, streams.Epoch)
	before := ids.Message()
	ids.NotBefore(now.Add(time.Minute))
	after := ids.Message()
	if before.Time() != now || after < streams.FirstIDAt(now.Add(time.Minute)) || after.Time() != now.Add(time.Minute) {
		t.Errorf("got ids of %v and %v", before.Time(), after.Time())
	}
	ids.NotBefore(now)
	if got := ids.Message(); got <= after {
		t.Errorf("after %v came %v", after, got)
	}
}
