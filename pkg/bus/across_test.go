package bus_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// What a node that stands still was told is told again a second later: by then another one may have taken over.
func TestAcross_ToldAgain(t *testing.T) {
	ctx := context.Background()
	for name, tell := range map[string]func(*lossy, *bus.Committer) error{
		"commit": func(_ *lossy, c *bus.Committer) error {
			_, err := c.Commit(ctx, messages(1, "b"))
			return err
		},
		"leader read": func(l *lossy, _ *bus.Committer) error {
			_, err := l.LastForSubject(ctx, stream, "s.a")
			return err
		},
		"direct read": func(l *lossy, _ *bus.Committer) error {
			_, err := l.Get(ctx, stream, 1)
			return err
		},
	} {
		for _, lost := range []int32{1, 2} {
			t.Run(fmt.Sprint(name, ", lost ", lost), func(t *testing.T) {
				dir := t.TempDir()
				bustest.Simulate(t, func(t *testing.T) {
					l := startAcross(t, dir)
					makeStream(t, l.Bus)
					c := bus.NewCommitter(l.Bus, stream, bus.CommitterOptions{})
					stop := start(t, c.Run)
					defer stop()
					if _, err := c.Commit(ctx, messages(1, "a")); err != nil {
						t.Fatal(err)
					}
					before := time.Now()
					l.deaf.Store(lost)
					if err := tell(l, c); err != nil {
						t.Error(err)
					}
					if left := l.deaf.Load(); left != 0 {
						t.Fatalf("%d were not lost: this tests nothing", left)
					}
					if took, most := time.Since(before), time.Duration(lost)*1200*time.Millisecond; took > most {
						t.Errorf("took %v, want %v at most", took, most)
					}
				})
			})
		}
	}
}

// node is one of a cluster in this process.
type node struct {
	*server.Server
	options server.Options
}

func (n *node) start(t *testing.T) {
	t.Helper()
	o := n.options
	var err error
	if n.Server, err = server.NewServer(&o); err != nil {
		t.Fatal(err)
	}
	n.Start()
	if !n.ReadyForConnections(time.Minute) {
		t.Fatal("a node does not start")
	}
}

func (n *node) stop() {
	n.Shutdown()
	n.WaitForShutdown()
}

// startNodes starts a cluster of three that holds the stream.
func startNodes(t *testing.T) (all []*node) {
	t.Helper()
	var routes []*url.URL // where they find each other, now and when one is started again
	ports := bustest.FreePorts(t, 3)
	for _, port := range ports {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprint("127.0.0.1:", port)})
	}
	for i, port := range ports {
		n := &node{options: server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 30, Routes: routes,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port},
		}}
		n.start(t)
		t.Cleanup(n.stop)
		all = append(all, n)
	}
	b := connect(t, all[0])
	config := jetstream.StreamConfig{Name: stream, Subjects: []string{"s.>"}, AllowAtomicPublish: true, Replicas: len(all)}
	eventually(t, "the stream is made", func(ctx context.Context) bool {
		_, err := b.JS.CreateStream(ctx, config)
		return err == nil
	})
	return all
}

// eventually asks until done says so, each time for a second at most.
func eventually(t *testing.T, what string, done func(context.Context) bool) {
	t.Helper()
	for try := range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		ok := done(ctx)
		cancel()
		if ok {
			return
		}
		if try == 99 {
			t.Fatalf("%s: not in time", what)
		}
		time.Sleep(100 * time.Millisecond) // nodes tell nobody when they have found each other
	}
}

// led tells the node that leads the stream from the other ones that run.
func led(t *testing.T, running []*node) (leader *node, others []*node) {
	t.Helper()
	b := connect(t, running[0])
	eventually(t, "the stream has a leader", func(ctx context.Context) bool {
		s, err := b.JS.Stream(ctx, stream)
		leader, others = nil, nil
		for _, n := range running {
			if err == nil && n.Name() == s.CachedInfo().Cluster.Leader {
				leader = n
			} else {
				others = append(others, n)
			}
		}
		return leader != nil
	})
	return leader, others
}

func connect(t *testing.T, n *node) *bus.Bus {
	t.Helper()
	conn, err := nats.Connect(n.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	b, err := bus.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What the leader has and too few others is waited for: it is told now and then, and stored once. A decision on top of
// one that is under way learns that.
func TestAcross_UnderWay(t *testing.T) {
	running := startNodes(t)
	_, others := led(t, running)
	others[1].stop()
	running = slices.DeleteFunc(running, func(n *node) bool { return n == others[1] })
	want := 0
	for _, n := range []int{1, 5} {
		leader, others := led(t, running)
		b := connect(t, leader)
		c := bus.NewCommitter(b, stream, bus.CommitterOptions{})
		start(t, c.Run)
		if _, err := c.Commit(t.Context(), messages(1, fmt.Sprint("before-", n))); err != nil {
			t.Fatal(err)
		}
		others[0].stop()
		before, begun := b.Conn.Stats().OutMsgs, time.Now()
		committed := make(chan error, 1)
		go func() {
			_, err := c.Commit(t.Context(), messages(n, fmt.Sprint("of-", n)))
			for try := 0; try < 3 && errors.Is(err, bus.ErrUnknownOutcome); try++ { // the nodes take their time to find a leader
				if _, err = c.Commit(t.Context(), messages(n, fmt.Sprint("of-", n))); errors.Is(err, bus.ErrDuplicate) {
					err = nil // it was stored by then
				}
			}
			committed <- err
		}()
		const tries = 3
		for b.Conn.Stats().OutMsgs < before+uint64(tries*n) {
			select {
			case err := <-committed:
				t.Fatalf("%d messages: got %v without a majority", n, err)
			case <-time.After(10 * time.Millisecond):
			}
		}
		if took := time.Since(begun); took < (tries-1)*time.Second {
			t.Errorf("%d messages were told %d times in %v", n, tries, took)
		}
		var wrong *bus.WrongLast
		subject := messages(n, fmt.Sprint("of-", n))[0].Subject
		if _, err := b.PublishFenced(t.Context(), message(subject, "", ""), 0); !errors.As(err, &wrong) || !wrong.UnderWay {
			t.Errorf("a decision on top of one under way: got %v", err)
		}
		others[0].start(t)
		if err := <-committed; err != nil {
			t.Errorf("%d messages: %v", n, err)
		}
		want += 1 + n
	}
	leader, _ := led(t, running)
	if got := bodies(t, connect(t, leader)); len(got) != want {
		t.Errorf("got %v, want %d messages", got, want)
	}
}

// An engine in this process that does not answer is busy: a question waits for it, for 15 s.
func TestInside_LateAnswer(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		l := startLossy(t, dir)
		makeStream(t, l.Bus)
		for late, ok := range map[time.Duration]bool{14 * time.Second: true, 16 * time.Second: false} {
			l.late.Store(int64(late))
			begun := time.Now()
			_, err := l.LastForSubject(t.Context(), stream, "s.a")
			if heard := errors.Is(err, bus.ErrNoMessage); heard != ok || !ok && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("an answer after %v: got %v after %v", late, err, time.Since(begun))
			}
			time.Sleep(late) // until the connection is free again
		}
	})
}
