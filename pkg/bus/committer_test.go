package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// together commits all requests so that one commit takes them, and returns what
// each was told. The committer is started after all of them wait.
func together(t testing.TB, b *bus.Bus, o bus.CommitterOptions, requests ...[]*nats.Msg) ([]bus.Stored, []error) {
	t.Helper()
	c := bus.NewCommitter(b, stream, o)
	stored, errs := make([]bus.Stored, len(requests)), make([]error, len(requests))
	var callers sync.WaitGroup
	for i, msgs := range requests {
		callers.Go(func() { stored[i], errs[i] = c.Commit(context.Background(), msgs) })
		c.AwaitWaiting(i + 1)
	}
	stop := start(t, c.Run)
	callers.Wait()
	stop()
	return stored, errs
}

func wantNoErrors(t testing.TB, errs []error) {
	t.Helper()
	for i, err := range errs {
		if err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
}

func TestCommit_OneBatchAtThreshold(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	stored, errs := together(t, b, bus.CommitterOptions{}, messages(10, "a"), messages(1, "b"), messages(5, "c"))
	wantNoErrors(t, errs)
	if diff := cmp.Diff([]bus.Stored{{First: 1, Count: 10}, {First: 11, Count: 1}, {First: 12, Count: 5}}, stored); diff != "" {
		t.Error(diff)
	}
	want := map[string]bool{}
	for seq := uint64(1); seq <= 16; seq++ {
		m, err := b.Get(t.Context(), stream, seq)
		if err != nil {
			t.Fatal(err)
		}
		want[m.Header.Get("Nats-Batch-Id")] = true
	}
	if len(want) != 1 || want[""] {
		t.Errorf("got batches %v, want one", want)
	}
}

// Below the threshold, single messages go without a batch, and requests of
// several as batches of their own.
func TestCommit_BelowThreshold(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	stored, errs := together(t, b, bus.CommitterOptions{}, messages(1, "a"), messages(4, "b"), messages(1, "c"), messages(4, "d"))
	wantNoErrors(t, errs)
	if diff := cmp.Diff([]bus.Stored{{First: 1, Count: 1}, {First: 2, Count: 4}, {First: 6, Count: 1}, {First: 7, Count: 4}}, stored); diff != "" {
		t.Error(diff)
	}
	batches := map[string]int{}
	for seq := uint64(1); seq <= 10; seq++ {
		m, err := b.Get(t.Context(), stream, seq)
		if err != nil {
			t.Fatal(err)
		}
		batches[m.Header.Get("Nats-Batch-Id")]++
	}
	if len(batches) != 3 || batches[""] != 2 {
		t.Errorf("got %v, want 2 single messages and 2 batches of 4", batches)
	}
}

func TestCommit_LeavesMessagesAsTheyWere(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	msgs := append(messages(20, "a"), &nats.Msg{Subject: "s.bare"})
	want := append(messages(20, "a"), &nats.Msg{Subject: "s.bare"})
	_, errs := together(t, b, bus.CommitterOptions{}, msgs)
	wantNoErrors(t, errs)
	for i := range want {
		if diff := cmp.Diff(want[i].Header, msgs[i].Header); diff != "" || msgs[i].Reply != "" {
			t.Fatalf("message %d: %s", i, diff)
		}
	}
}

func TestCommit_LargestRequest(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	stored, errs := together(t, b, bus.CommitterOptions{}, messages(bus.MaxRequest, "a"), messages(1000, "b"))
	wantNoErrors(t, errs)
	if diff := cmp.Diff([]bus.Stored{{First: 1, Count: 1001}, {First: 1002, Count: 1000}}, stored); diff != "" {
		t.Error(diff)
	}
	c := bus.NewCommitter(b, stream, bus.CommitterOptions{})
	for _, n := range []int{0, bus.MaxRequest + 1} {
		if _, err := c.Commit(t.Context(), messages(n, "c")); !errors.Is(err, bus.ErrNotStored) {
			t.Errorf("%d messages: got %v, want ErrNotStored", n, err)
		}
	}
	if _, err := c.Commit(t.Context(), []*nats.Msg{message("s.x", "", string(make([]byte, natsd.MaxPayload)))}); !errors.Is(err, bus.ErrNotStored) {
		t.Errorf("the largest message: got %v, want ErrNotStored", err)
	}
}

// One request spoils a shared batch: it alone fails.
func TestCommit_GuiltyRequest(t *testing.T) {
	expectNothing := func(m *nats.Msg) *nats.Msg {
		m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
		return m
	}
	badTTL := message("s.ttl", "", "guilty")
	badTTL.Header.Set(jetstream.MsgTTLHeader, "soon")
	wrongStream := message("s.x", "", "guilty")
	wrongStream.Header.Set(jetstream.ExpectedStreamHeader, "OTHER")
	tests := map[string]struct {
		guilty []*nats.Msg
		want   error
	}{
		"message id is taken":              {[]*nats.Msg{message("s.x", "taken", "guilty")}, bus.ErrDuplicate},
		"one of many ids is taken":         {append(messages(7, "guilty"), message("s.x", "taken", "guilty")), bus.ErrDuplicate},
		"subject is not empty":             {[]*nats.Msg{expectNothing(message("s.key", "", "guilty"))}, &bus.WrongLast{Last: 1}},
		"marker is there":                  {append([]*nats.Msg{expectNothing(message("s.key", "", "guilty"))}, messages(7, "guilty")...), &bus.WrongLast{Last: 1}},
		"no stream has the subject":        {[]*nats.Msg{message("nobody", "", "guilty")}, nats.ErrNoResponders},
		"invalid":                          {[]*nats.Msg{badTTL}, bus.ErrNotStored},
		"meant for another stream":         {[]*nats.Msg{wrongStream}, bus.ErrNotStored},
		"no stream has one of the subject": {append(messages(7, "guilty"), message("nobody", "", "guilty")), bus.ErrNotStored},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			bustest.Simulate(t, func(t *testing.T) { // one that can never be stored is retried for 20 s
				server, b := bustest.Start(t, dir)
				defer server.Stop()
				makeStream(t, b)
				if _, err := b.JS.PublishMsg(context.Background(), message("s.key", "taken", "before")); err != nil {
					t.Fatal(err)
				}
				requests, want := [][]*nats.Msg{}, []string{"before"}
				for i := range 40 {
					if i == 17 {
						requests = append(requests, test.guilty)
					}
					request := messages(1+i%3, fmt.Sprint("innocent-", i))
					requests = append(requests, request)
					for _, m := range request {
						want = append(want, string(m.Data))
					}
				}
				stored, errs := together(t, b, bus.CommitterOptions{}, requests...)
				var wrong *bus.WrongLast
				if errors.As(test.want, &wrong) {
					var got *bus.WrongLast
					if !errors.As(errs[17], &got) || *got != *wrong {
						t.Errorf("guilty: got %v, want %v", errs[17], wrong)
					}
				} else if !errors.Is(errs[17], test.want) {
					t.Errorf("guilty: got %v, want %v", errs[17], test.want)
				}
				if !errors.Is(errs[17], bus.ErrNotStored) {
					t.Errorf("guilty: got %v, want ErrNotStored", errs[17])
				}
				wantNoErrors(t, slices.Delete(errs, 17, 18))
				got := bodies(t, b)
				for i, s := range stored {
					for j := range s.Count {
						if want := string(requests[i][j].Data); got[s.First+uint64(j)-1] != want {
							t.Fatalf("request %d: got %q at its sequence, want %q", i, got[s.First+uint64(j)-1], want)
						}
					}
				}
				slices.Sort(got)
				slices.Sort(want)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// Two requests of one key in a shared batch: one is stored, the other learns it.
func TestCommit_SameKeyTwiceInOneBatch(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	keyed := func(body string) []*nats.Msg {
		m := message("s.key", "", body)
		m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
		return append([]*nats.Msg{m}, messages(9, body)...)
	}
	stored, errs := together(t, b, bus.CommitterOptions{}, keyed("a"), keyed("b"))
	if errs[0] != nil || stored[0].Count != 10 {
		t.Errorf("first: got %v, %v", stored[0], errs[0])
	}
	var wrong *bus.WrongLast
	if !errors.As(errs[1], &wrong) || wrong.Last != stored[0].First {
		t.Errorf("second: got %v, want WrongLast %d", errs[1], stored[0].First)
	}
	if got := len(bodies(t, b)); got != 10 {
		t.Errorf("got %d messages, want 10", got)
	}
}

// A message that expects what an earlier one of its own request makes untrue.
func TestCommit_RequestAgainstItself(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	second := message("s.key", "", "2")
	second.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
	_, errs := together(t, b, bus.CommitterOptions{}, []*nats.Msg{message("s.key", "", "1"), second})
	var wrong *bus.WrongLast
	if !errors.As(errs[0], &wrong) || wrong.Last != 0 {
		t.Errorf("got %v, want WrongLast 0", errs[0])
	}
	if got := bodies(t, b); len(got) != 0 {
		t.Errorf("got %v stored, want nothing", got)
	}
}

func TestCommit_Full(t *testing.T) {
	for name, size := range map[string]int{"singles": 1, "batches": 30} {
		t.Run(name, func(t *testing.T) {
			b := bustest.New(t)
			makeStream(t, b, func(c *jetstream.StreamConfig) { c.MaxBytes = 64 << 10 })
			c := bus.NewCommitter(b, stream, bus.CommitterOptions{})
			start(t, c.Run)
			count := 0
			for i := 0; ; i++ {
				request := messages(size, fmt.Sprint(i))
				for _, m := range request {
					m.Data = make([]byte, 500)
				}
				stored, err := c.Commit(t.Context(), request)
				if err == nil {
					count += stored.Count
					continue
				}
				if !errors.Is(err, bus.ErrFull) || !errors.Is(err, bus.ErrNotStored) {
					t.Fatalf("got %v, want ErrFull", err)
				}
				break
			}
			if got := len(bodies(t, b)); got != count {
				t.Errorf("got %d messages stored, want the %d that were acknowledged", got, count)
			}
		})
	}
}

func TestCommit_Concurrent(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	var mu sync.Mutex
	observed, commits := 0, 0
	c := bus.NewCommitter(b, stream, bus.CommitterOptions{Observe: func(messages int, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		observed += messages
		commits++
		if took < 0 {
			t.Errorf("a commit took %v", took)
		}
	}})
	stop := start(t, c.Run)
	const callers, rounds = 300, 5
	want := make([]string, 0, callers*rounds*2)
	at := map[uint64]string{}
	var wait sync.WaitGroup
	for i := range callers {
		wait.Go(func() {
			for j := range rounds {
				request := messages(1+(i+j)%4, fmt.Sprintf("%d.%d", i, j))
				stored, err := c.Commit(t.Context(), request)
				if err != nil || stored.Count != len(request) {
					t.Errorf("got %v, %v", stored, err)
					return
				}
				mu.Lock()
				for k, m := range request {
					at[stored.First+uint64(k)] = string(m.Data)
					want = append(want, string(m.Data))
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	stop()
	got := bodies(t, b)
	for seq, body := range at {
		if got[seq-1] != body {
			t.Fatalf("sequence %d: got %q, want %q", seq, got[seq-1], body)
		}
	}
	if len(got) != len(want) || len(at) != len(want) || observed != len(want) {
		t.Errorf("got %d stored, %d told, %d observed, want %d", len(got), len(at), observed, len(want))
	}
	if commits >= callers*rounds {
		t.Errorf("got %d commits for %d requests, want them in groups", commits, callers*rounds)
	}
}

func TestCommit_CancelledBeforeTaken(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	c := bus.NewCommitter(b, stream, bus.CommitterOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := c.Commit(ctx, messages(20, "cancelled"))
		failed <- err
	}()
	c.AwaitWaiting(1)
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) || !errors.Is(err, bus.ErrNotStored) {
		t.Errorf("got %v, want context.Canceled and ErrNotStored", err)
	}
	if _, err := c.Commit(ctx, messages(1, "too late")); !errors.Is(err, bus.ErrNotStored) {
		t.Errorf("got %v, want ErrNotStored", err)
	}
	start(t, c.Run)
	if _, err := c.Commit(t.Context(), messages(1, "after")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"after-1"}, bodies(t, b)); diff != "" {
		t.Error(diff)
	}
}

func TestCommit_Busy(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	c := bus.NewCommitter(b, stream, bus.CommitterOptions{MaxWaiting: 100})
	ctx, cancel := context.WithCancel(t.Context())
	large := []*nats.Msg{message("s.x", "", strings.Repeat("x", 200))}
	var first sync.WaitGroup
	first.Go(func() { _, _ = c.Commit(ctx, large) }) // one request may be larger than the bound
	c.AwaitWaiting(1)
	if _, err := c.Commit(t.Context(), large); !errors.Is(err, bus.ErrBusy) || !errors.Is(err, bus.ErrNotStored) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	cancel()
	first.Wait()
	start(t, c.Run)
	if _, err := c.Commit(t.Context(), large); err != nil {
		t.Errorf("after the first was withdrawn: got %v", err)
	}
}

func TestRun_StopAnswersEveryone(t *testing.T) {
	b := bustest.New(t)
	makeStream(t, b)
	c := bus.NewCommitter(b, stream, bus.CommitterOptions{MaxBatch: 100})
	stop := start(t, c.Run)
	var mu sync.Mutex
	var acknowledged []string
	var callers sync.WaitGroup
	first := make(chan struct{})
	var once sync.Once
	for i := range 200 {
		callers.Go(func() {
			for j := 0; ; j++ {
				request := messages(10, fmt.Sprintf("%d.%d", i, j))
				_, err := c.Commit(context.Background(), request)
				once.Do(func() { close(first) })
				if err == nil {
					mu.Lock()
					for _, m := range request {
						acknowledged = append(acknowledged, string(m.Data))
					}
					mu.Unlock()
					continue
				}
				if !errors.Is(err, bus.ErrStopped) {
					t.Errorf("got %v, want ErrStopped", err)
				}
				return
			}
		})
	}
	<-first
	stop()
	callers.Wait()
	got := bodies(t, b)
	slices.Sort(got)
	slices.Sort(acknowledged)
	if diff := cmp.Diff(acknowledged, got); diff != "" {
		t.Error(diff)
	}
}

func TestRun_LeavesNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	server, b := bustest.Start(t, t.TempDir())
	makeStream(t, b)
	_, errs := together(t, b, bus.CommitterOptions{}, messages(20, "a"))
	wantNoErrors(t, errs)
	server.Stop()
	goleak.VerifyNone(t, before)
}

// However much waits, a commit has so many messages and bytes and no more, and the rest goes into the next ones.
func TestCommit_Bounds(t *testing.T) {
	for name, test := range map[string]struct {
		requests, bytes int // of one message each
		most            int // messages of a commit
	}{
		"messages": {2500, 10, 1000},
		"bytes":    {20, 1 << 17, 7}, // with what a message has around it
	} {
		t.Run(name, func(t *testing.T) {
			b := bustest.New(t)
			makeStream(t, b)
			var sizes []int
			c := bus.NewCommitter(b, stream, bus.CommitterOptions{Observe: func(messages int, _ time.Duration) { sizes = append(sizes, messages) }})
			errs := make(chan error, test.requests)
			body := strings.Repeat("x", test.bytes)
			for i := range test.requests {
				go func() {
					_, err := c.Commit(t.Context(), []*nats.Msg{message(fmt.Sprint("s.", i), "", body)})
					errs <- err
				}()
			}
			c.AwaitWaiting(test.requests)
			stop := start(t, c.Run)
			for range test.requests {
				if err := <-errs; err != nil {
					t.Fatal(err)
				}
			}
			stop()
			if got := slices.Max(sizes); got != test.most {
				t.Errorf("got commits of %v messages, want at most %d", sizes, test.most)
			}
		})
	}
}
