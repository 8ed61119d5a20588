package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// Answers that get lost are found out: nothing is stored twice, and everybody
// is told the truth.
func TestCommit_LostAnswer(t *testing.T) {
	keyed := func() []*nats.Msg {
		marker := message("s.key.k", "key", "marker")
		marker.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
		return append([]*nats.Msg{marker}, messages(3, "keyed")...)
	}
	tests := map[string]struct {
		before   []*nats.Msg // stored before, and its answer not lost
		requests [][]*nats.Msg
		want     []bus.Stored
		errs     []error
	}{
		"single": {
			requests: [][]*nats.Msg{messages(1, "a")},
			want:     []bus.Stored{{First: 1, Count: 1}},
		},
		"own batch": {
			requests: [][]*nats.Msg{messages(5, "a")},
			want:     []bus.Stored{{First: 1, Count: 5}},
		},
		"marker and messages": {
			before:   messages(4, "others"),
			requests: [][]*nats.Msg{keyed()},
			want:     []bus.Stored{{First: 5, Count: 4}},
		},
		"shared batch": {
			before:   messages(3, "a"), // of the subject that is searched
			requests: [][]*nats.Msg{{message("s.no-id", "", "no id")}, messages(20, "b"), messages(7, "c")},
			want:     []bus.Stored{{First: 4, Count: 1}, {First: 5, Count: 20}, {First: 25, Count: 7}},
		},
		"refusal of a shared batch": {
			before:   messages(1, "taken"),
			requests: [][]*nats.Msg{messages(9, "a"), messages(1, "taken"), messages(10, "b")},
			want:     []bus.Stored{{First: 2, Count: 9}, {}, {First: 11, Count: 10}},
			errs:     []error{nil, bus.ErrDuplicate, nil},
		},
		"refusal of a batch": {
			before:   messages(2, "taken"),
			requests: [][]*nats.Msg{append(messages(3, "a"), messages(1, "taken")...)},
			want:     []bus.Stored{{}},
			errs:     []error{bus.ErrDuplicate},
		},
		"refusal of a single": {
			before:   []*nats.Msg{message("s.x", "taken", "another's")},
			requests: [][]*nats.Msg{{message("s.x", "taken", "mine")}},
			want:     []bus.Stored{{}},
			errs:     []error{bus.ErrDuplicate},
		},
	}
	for name, test := range tests {
		for _, silent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, silent=%t", name, silent), func(t *testing.T) {
				dir := t.TempDir()
				bustest.Simulate(t, func(t *testing.T) {
					l := startLossy(t, dir)
					makeStream(t, l.Bus)
					for _, m := range test.before {
						if _, err := l.JS.PublishMsg(context.Background(), m); err != nil {
							t.Fatal(err)
						}
					}
					l.silent.Store(silent)
					l.loseAnswers(1)
					stored, errs := together(t, l.Bus, bus.CommitterOptions{}, test.requests...)
					if lost := l.losses.Load(); lost != 0 {
						t.Fatalf("no answer was lost")
					}
					if test.errs == nil {
						test.errs = make([]error, len(errs))
					}
					for i, want := range test.errs {
						if !errors.Is(errs[i], want) {
							t.Errorf("request %d: got %v, want %v", i, errs[i], want)
						}
					}
					if diff := cmp.Diff(test.want, stored); diff != "" {
						t.Error(diff)
					}
					want := make([]string, len(test.before))
					for i, m := range test.before {
						want[i] = string(m.Data)
					}
					for i, s := range test.want {
						for j := range s.Count {
							want = append(want, string(test.requests[i][j].Data))
						}
					}
					if diff := cmp.Diff(want, bodies(t, l.Bus)); diff != "" {
						t.Error(diff)
					}
				})
			})
		}
	}
}

// The id that is found belongs to another's message, stored since the committer
// last looked.
func TestCommit_LostRefusal(t *testing.T) {
	for _, n := range []int{1, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir := t.TempDir()
			bustest.Simulate(t, func(t *testing.T) {
				l := startLossy(t, dir)
				makeStream(t, l.Bus)
				c := bus.NewCommitter(l.Bus, stream, bus.CommitterOptions{})
				stop := start(t, c.Run)
				defer stop()
				if _, err := c.Commit(context.Background(), messages(1, "first")); err != nil {
					t.Fatal(err)
				}
				mine := messages(n, "mine")
				if _, err := l.JS.PublishMsg(context.Background(), message(mine[0].Subject, "mine-1", "another's")); err != nil {
					t.Fatal(err)
				}
				l.loseAnswers(1)
				if _, err := c.Commit(context.Background(), mine); !errors.Is(err, bus.ErrDuplicate) {
					t.Errorf("got %v, want ErrDuplicate", err)
				}
			})
		})
	}
}

// Somebody else's open batches leave no room for ours until they lapse.
func TestCommit_TooManyOpenBatches(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		server, b := bustest.Start(t, dir)
		defer server.Stop()
		makeStream(t, b)
		for i := range 50 {
			m := message("s.x", "", "")
			m.Header.Set("Nats-Batch-Id", fmt.Sprint(i))
			m.Header.Set("Nats-Batch-Sequence", "1")
			if err := b.Conn.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		stored, errs := together(t, b, bus.CommitterOptions{}, messages(2, "a"))
		wantNoErrors(t, errs)
		if diff := cmp.Diff([]bus.Stored{{First: 1, Count: 2}}, stored); diff != "" {
			t.Error(diff)
		}
		if time.Since(begin) < time.Second {
			t.Error("the open batches left room, so this tests nothing")
		}
	})
}

// Without a message id there is nothing to be found: the copy is whole.
func TestCommit_LostAnswerWithoutID(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		l := startLossy(t, dir)
		makeStream(t, l.Bus)
		l.loseAnswers(1)
		stored, errs := together(t, l.Bus, bus.CommitterOptions{}, []*nats.Msg{message("s.x", "", "1"), message("s.x", "", "2")})
		wantNoErrors(t, errs)
		if diff := cmp.Diff([]bus.Stored{{First: 3, Count: 2}}, stored); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"1", "2", "1", "2"}, bodies(t, l.Bus)); diff != "" {
			t.Error(diff)
		}
	})
}

// An outcome that stays unknown is given up after 20 s, and said to be unknown.
func TestCommit_OutcomeStaysUnknown(t *testing.T) {
	for _, n := range []int{1, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir := t.TempDir()
			bustest.Simulate(t, func(t *testing.T) {
				l := startLossy(t, dir)
				makeStream(t, l.Bus)
				l.silent.Store(true)
				l.loseAnswers(1000)
				begin := time.Now()
				_, errs := together(t, l.Bus, bus.CommitterOptions{}, messages(n, "a"))
				if !errors.Is(errs[0], bus.ErrUnknownOutcome) || errors.Is(errs[0], bus.ErrNotStored) {
					t.Errorf("got %v, want ErrUnknownOutcome", errs[0])
				}
				if took := time.Since(begin); took < 20*time.Second || took > 22*time.Second {
					t.Errorf("got it after %v, want about 20 s", took)
				}
				l.loseAnswers(0)
				if got := len(bodies(t, l.Bus)); got != n {
					t.Errorf("got %d messages, want %d", got, n)
				}
			})
		})
	}
}

// unheard runs a committer onto an engine of which nothing is heard for so many answers.
func unheard(t *testing.T, dir string, answers int32) (l *lossy, c *bus.Committer, stop func()) {
	t.Helper()
	l = startLossy(t, dir)
	makeStream(t, l.Bus)
	l.silent.Store(true)
	l.loseAnswers(answers)
	c = bus.NewCommitter(l.Bus, stream, bus.CommitterOptions{})
	return l, c, start(t, c.Run)
}

// A caller whose context ends while its messages are under way learns what
// became of them.
func TestCommit_CancelledAfterTaken(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		_, c, stop := unheard(t, dir, 1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		stored, err := c.Commit(ctx, messages(2, "a"))
		if err != nil || stored.First != 1 {
			t.Errorf("got %v, %v, want it stored", stored, err)
		}
		stop()
	})
}

// A caller who gives up is told that nobody knows, and does not wait.
func TestCommit_GivenUpAfterTaken(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		_, c, stop := unheard(t, dir, 1)
		defer stop()
		waiting, cancel := context.WithCancel(context.Background())
		time.AfterFunc(2*time.Second, cancel)
		ctx, end := context.WithTimeout(bus.While(waiting), time.Second)
		defer end()
		begun := time.Now()
		if _, err := c.Commit(ctx, messages(2, "a")); !errors.Is(err, bus.ErrUnknownOutcome) || time.Since(begun) != 2*time.Second {
			t.Errorf("got %v after %v, want after two seconds that nobody knows", err, time.Since(begun))
		}
	})
}

// Stopping with an outcome under way waits for this attempt, and no other.
func TestRun_StopEndsRetries(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		_, c, stop := unheard(t, dir, 1000)
		begin := time.Now()
		time.AfterFunc(time.Second, stop)
		_, err := c.Commit(context.Background(), messages(1, "a"))
		if !errors.Is(err, bus.ErrUnknownOutcome) {
			t.Errorf("got %v, want ErrUnknownOutcome", err)
		}
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("got it after %v", took)
		}
		stop()
	})
}

func TestCommit_ConnectionClosed(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		l, c, stop := unheard(t, dir, 1000)
		begin := time.Now()
		time.AfterFunc(time.Second, l.Conn.Close)
		if _, err := c.Commit(context.Background(), messages(1, "a")); !errors.Is(err, bus.ErrUnknownOutcome) {
			t.Errorf("under way: got %v, want ErrUnknownOutcome", err)
		}
		if _, err := c.Commit(context.Background(), messages(1, "b")); !errors.Is(err, bus.ErrNotStored) || errors.Is(err, bus.ErrUnknownOutcome) {
			t.Errorf("afterwards: got %v, want ErrNotStored", err)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("got both after %v", took)
		}
		stop()
	})
}

// While the engine is away nothing is sent, so nothing is stored.
func TestCommit_EngineAway(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		l := startLossy(t, dir)
		makeStream(t, l.Bus)
		c := bus.NewCommitter(l.Bus, stream, bus.CommitterOptions{})
		stop := start(t, c.Run)
		if _, err := c.Commit(context.Background(), messages(1, "first")); err != nil {
			t.Fatal(err)
		}
		lost := l.Conn.StatusChanged(nats.RECONNECTING)
		defer l.Conn.RemoveStatusListener(lost)
		l.server.Stop()
		<-lost // before, what is sent may have been received
		var callers sync.WaitGroup
		for i := range 20 {
			callers.Go(func() {
				_, err := c.Commit(context.Background(), messages(1, fmt.Sprint(i)))
				if !errors.Is(err, bus.ErrNotStored) || errors.Is(err, bus.ErrUnknownOutcome) {
					t.Errorf("got %v, want ErrNotStored", err)
				}
			})
		}
		callers.Wait()
		stop()
	})
}
