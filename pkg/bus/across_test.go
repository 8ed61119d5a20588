package bus_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/bustest"
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

// startNodes starts a cluster of three that holds the stream, and gives a bus to the leader's node and the other nodes.
func startNodes(t *testing.T) (b *bus.Bus, others []*node) {
	t.Helper()
	var routes []*url.URL // where they find each other, now and when one is started again
	for range 3 {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
	}
	var all []*node
	for i, at := range routes {
		port, err := strconv.Atoi(at.Port())
		if err != nil {
			t.Fatal(err)
		}
		n := &node{options: server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 30, Routes: routes,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port},
		}}
		n.start(t)
		t.Cleanup(n.stop)
		all = append(all, n)
	}
	config := jetstream.StreamConfig{Name: stream, Subjects: []string{"s.>"}, AllowAtomicPublish: true, Replicas: len(all)}
	b = connect(t, all[0])
	create := func() (jetstream.Stream, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return b.JS.CreateStream(ctx, config)
	}
	made, err := create()
	for try := 0; err != nil; try++ { // until they have found each other
		if try == 100 {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		made, err = create()
	}
	for _, n := range all {
		if n.Name() == made.CachedInfo().Cluster.Leader {
			b = connect(t, n)
		} else {
			others = append(others, n)
		}
	}
	return b, others
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

// Messages that the leader has and too few others are waited for: they are told once a second, and stored once.
func TestAcross_UnderWay(t *testing.T) {
	b, others := startNodes(t)
	c := bus.NewCommitter(b, stream, bus.CommitterOptions{})
	start(t, c.Run)
	if _, err := c.Commit(t.Context(), messages(1, "first")); err != nil {
		t.Fatal(err)
	}
	others[1].stop()
	want := []string{"first-1"}
	for _, n := range []int{1, 5} {
		others[0].stop()
		before, begun := b.Conn.Stats().OutMsgs, time.Now()
		committed := make(chan error, 1)
		go func() {
			_, err := c.Commit(t.Context(), messages(n, fmt.Sprint("of-", n)))
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
		others[0].start(t)
		if err := <-committed; err != nil {
			t.Errorf("%d messages: %v", n, err)
		}
		for _, m := range messages(n, fmt.Sprint("of-", n)) {
			want = append(want, string(m.Data))
		}
	}
	if diff := cmp.Diff(want, bodies(t, b)); diff != "" {
		t.Error(diff)
	}
}
