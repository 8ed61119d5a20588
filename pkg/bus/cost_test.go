package bus_test

import (
	"context"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// To find out what became of a lost answer costs the same however much the stream holds, and nothing is remembered of
// it afterwards.
func TestCommit_LostAnswerCost(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		l := startLossy(t, dir)
		makeStream(t, l.Bus)
		for range 500 {
			if _, err := l.JS.Publish(context.Background(), "s.a", nil); err != nil {
				t.Fatal(err)
			}
		}
		c := bus.NewCommitter(l.Bus, stream, bus.CommitterOptions{})
		stop := start(t, c.Run)
		l.silent.Store(true)
		l.loseAnswers(1)
		before := l.Conn.Stats().OutMsgs
		if got, err := c.Commit(context.Background(), messages(1, "a")); err != nil || got.First != 501 {
			t.Errorf("got %+v, %v, want it at 501", got, err)
		}
		if asked := l.Conn.Stats().OutMsgs - before; asked > 10 {
			t.Errorf("it took %d messages to the engine, want a few", asked)
		}
		if _, err := c.Commit(context.Background(), messages(3, "b")); err != nil {
			t.Fatal(err)
		}
		stop()
		if got := c.Remembers(); got != 0 {
			t.Errorf("got %d attempts in memory, want none", got)
		}
	})
}
