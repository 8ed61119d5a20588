package projection_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// What comes close behind a commit is committed together, a moment later; what
// comes after a pause, or is waited for, at once.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.New(t)
		makeStreams(t, b)
		begun := time.Now()
		var commits []string
		f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{
			Committed: func(events []projection.Event) {
				commits = append(commits, fmt.Sprintf("%d after %v", len(events), time.Since(begun)))
			},
		})
		if err := f.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		begun = time.Now()

		publish(t, b, "ORDERS.a", "alone")
		synctest.Wait() // no time goes by
		for range 9 {
			publish(t, b, "ORDERS.a", "together")
			publish(t, b, "PAYMENTS.a", "together")
			synctest.Wait()
		}
		time.Sleep(time.Second)
		publish(t, b, "ORDERS.a", "after a pause")
		synctest.Wait()
		// The wait begins before the event comes, and after it.
		publish(t, b, "ORDERS.a", "waited for")
		synctest.Wait()
		f.await(orders, 12)
		waited := make(chan error, 1)
		go func() { waited <- f.Wait(context.Background(), payments, 10) }()
		synctest.Wait()
		publish(t, b, "ORDERS.a", "comes along")
		synctest.Wait()
		publish(t, b, "PAYMENTS.a", "waited for")
		if err := <-waited; err != nil {
			t.Error(err)
		}
		want := []string{"1 after 0s", "18 after 10ms", "1 after 1s", "1 after 1s", "2 after 1s"}
		if diff := cmp.Diff(want, commits); diff != "" {
			t.Errorf("commits (-want +got):\n%s", diff)
		}
		f.stop()
	})
}
