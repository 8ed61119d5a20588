package demo

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/trunkline-sms/trunkline/services/lab/phone"
)

func outcomes(status int, hashes ...string) []phone.Outcome {
	var all []phone.Outcome
	for _, hash := range hashes {
		all = append(all, phone.Outcome{Hash: hash, Status: status})
	}
	return all
}

func TestTally(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tally := newTally(4, progress(Options{Messages: 4}))
		begun := time.Now()
		// A phone may be quicker than the sender's answer.
		tally.pulled([]string{"a", "b"})
		tally.reported(outcomes(phone.Success, "a"))
		time.Sleep(time.Second)
		tally.accepted([]string{"a", "b", "c", "d"}, begun)
		tally.pulled([]string{"c", "d"})
		time.Sleep(time.Second)
		tally.reported(outcomes(phone.Failure, "b", "c"))
		tally.reported(outcomes(phone.Success, "d"))
		tally.await(t.Context(), time.Hour)

		got := tally.result()
		want := Result{Accepted: 4, Delivered: 2, Failed: 2, AcceptRate: 4, DeliverRate: 2}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Result{}, "Posts", "Through")); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
		if err := got.Err(); err != nil {
			t.Errorf("got error %v, want none", err)
		}
		if time.Since(begun) != 2*time.Second {
			t.Errorf("waited until %v, want no longer than to the last report", time.Since(begun))
		}
		if got := time.Duration(got.Posts.Max()) * time.Microsecond; got.Round(10*time.Millisecond) != time.Second {
			t.Errorf("got a slowest POST of %v, want 1s", got)
		}
	})
}

func TestTallyFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		do            func(*tally)
		lost, doubled int
	}{
		"never handed out": {func(t *tally) { t.accepted([]string{"a", "b"}, time.Now()); t.reported(outcomes(phone.Success, "a")) }, 1, 0},
		"never reported":   {func(t *tally) { t.accepted([]string{"a", "b"}, time.Now()); t.pulled([]string{"a", "b"}) }, 2, 0},
		"handed out twice": {func(t *tally) {
			t.accepted([]string{"a"}, time.Now())
			t.pulled([]string{"a"})
			t.pulled([]string{"a"})
			t.reported(outcomes(phone.Success, "a"))
			t.reported(outcomes(phone.Failure, "a"))
		}, 0, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			tally := newTally(2, progress(Options{Messages: 2}))
			c.do(tally)
			tally.await(t.Context(), time.Minute) // gives up
			got := tally.result()
			if got.Lost != c.lost || got.Doubled != c.doubled || got.Err() == nil {
				t.Errorf("%s: got %d lost, %d doubled and error %v, want %d and %d and an error", name, got.Lost, got.Doubled, got.Err(), c.lost, c.doubled)
			}
		})
	}
}

func TestResultPrint(t *testing.T) {
	tally := newTally(1, progress(Options{Messages: 1}))
	tally.accepted([]string{"a"}, time.Now())
	tally.reported(outcomes(phone.Success, "a"))
	var out strings.Builder
	if err := tally.result().Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"accepted", "delivered", "failed", "lost", "handed out twice", "p50", "p99", "POST", "accepted to reported"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got a table without %q:\n%s", want, out.String())
		}
	}
}
