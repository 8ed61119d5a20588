package bus_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

const fenceSubject = "s.fence"

// stalling is an engine behind a network that can stop, and a bus of its own that no network is before.
type stalling struct {
	*bus.Bus
	network *bustest.Network
	direct  *bus.Bus
}

func startStalling(t *testing.T, dir string, way func(*bustest.Network) nats.Option) *stalling {
	t.Helper()
	server, err := natsd.Start(natsd.Options{Dir: dir, InProcessOnly: true, Durability: "process"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	s := &stalling{network: bustest.NewNetwork(func() (net.Conn, error) { return server.InProcessConn() })}
	key, err := nats.NkeyOptionFromSeed(filepath.Join(dir, "keys", "engine.nk"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nats.Connect("127.0.0.1", key, way(s.network), nats.ReconnectBufSize(-1), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if s.Bus, err = bus.New(conn); err != nil {
		t.Fatal(err)
	}
	other, err := server.Connect("direct")
	if err != nil {
		t.Fatal(err)
	}
	if s.direct, err = bus.New(other); err != nil {
		t.Fatal(err)
	}
	makeStream(t, s.direct, func(c *jetstream.StreamConfig) { c.Duplicates = 30 * time.Second })
	return s
}

// fenced makes a committer with a fence, which runs.
func fenced(t *testing.T, b *bus.Bus) (*bus.Committer, *bus.Fence) {
	t.Helper()
	fence := bus.NewFence(b, stream)
	if err := fence.Use(t.Context(), message(fenceSubject, "", "mine")); err != nil {
		t.Fatal(err)
	}
	c := bus.NewCommitter(b, stream, bus.CommitterOptions{Fence: fence})
	start(t, c.Run)
	return c, fence
}

// expected makes a request's messages expect the fence.
func expected(t *testing.T, f *bus.Fence, msgs []*nats.Msg) []*nats.Msg {
	t.Helper()
	e, err := f.Expect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.Put(msgs[len(msgs)-1])
	return msgs
}

// kept gives the bodies of what is stored beside the fence.
func kept(t *testing.T, b *bus.Bus) []string {
	t.Helper()
	if _, err := b.JS.PublishMsg(context.Background(), message(fenceSubject, "", "fence")); err != nil { // behind what has arrived
		t.Fatal(err)
	}
	return slices.DeleteFunc(bodies(t, b), func(body string) bool { return body == "mine" || body == "fence" || body == "theirs" })
}

func wantKept(t *testing.T, b *bus.Bus, n int) {
	t.Helper()
	all := kept(t, b)
	slices.Sort(all)
	if once := slices.Compact(slices.Clone(all)); len(all) != n || len(once) != n {
		t.Errorf("got %d stored of %d, want %d once: %v", len(all), len(once), n, all)
	}
}

// What lies in a buffer while the committer has long stored it by another way is refused when it arrives, whether the
// engine knows the ids still or not.
func TestFence_ArrivesTwice(t *testing.T) {
	ways := map[string]func(*bustest.Network) nats.Option{
		"inside": func(n *bustest.Network) nats.Option { return nats.InProcessServer(n) },
		"across": func(n *bustest.Network) nats.Option { return nats.SetCustomDialer(n) },
	}
	for name, way := range ways {
		for _, n := range []int{1, 5, 40} {
			for _, after := range []time.Duration{time.Second, 36 * time.Second, 64 * time.Second, 300 * time.Second} {
				t.Run(fmt.Sprintf("%s, %d messages, %s", name, n, after), func(t *testing.T) {
					dir := t.TempDir()
					bustest.Simulate(t, func(t *testing.T) {
						s := startStalling(t, dir, way)
						c, fence := fenced(t, s.Bus)
						late := s.network.Stop()
						done := make(chan error, 1)
						go func() {
							_, err := c.Commit(context.Background(), expected(t, fence, messages(n, "m")))
							done <- err
						}()
						late.Await(t, fmt.Sprint("m-", n))
						time.Sleep(2 * time.Second)
						late.Cut()
						if err := <-done; err != nil {
							t.Fatal(err)
						}
						time.Sleep(after)
						late.Arrive()
						wantKept(t, s.direct, n)
					})
				})
			}
		}
	}
}

// What nobody has heard of for so long that it was given up is stored in time, or never: not behind somebody else's move.
func TestFence_GivenUp(t *testing.T) {
	for _, moved := range []bool{false, true} {
		t.Run(fmt.Sprint("moved=", moved), func(t *testing.T) {
			dir := t.TempDir()
			bustest.Simulate(t, func(t *testing.T) {
				s := startStalling(t, dir, func(n *bustest.Network) nats.Option { return nats.InProcessServer(n) })
				c, fence := fenced(t, s.Bus)
				late := s.network.Stop()
				_, err := c.Commit(t.Context(), expected(t, fence, messages(3, "m")))
				if !errors.Is(err, bus.ErrUnknownOutcome) {
					t.Fatalf("got %v, want an unknown outcome", err)
				}
				want := 3
				if moved {
					want = 0
					if _, err := s.direct.JS.PublishMsg(t.Context(), message(fenceSubject, "", "theirs")); err != nil {
						t.Fatal(err)
					}
				}
				late.Arrive()
				wantKept(t, s.direct, want)
			})
		})
	}
}

// An owner who goes on under another subject cannot say what becomes of what he sent under the one before: it may come in
// as long as nobody moves that.
func TestFence_UsedElsewhere(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		s := startStalling(t, dir, func(n *bustest.Network) nats.Option { return nats.InProcessServer(n) })
		c, fence := fenced(t, s.Bus)
		late := s.network.Stop()
		committed := make(chan error, 1)
		go func() {
			_, err := c.Commit(t.Context(), expected(t, fence, messages(3, "m")))
			committed <- err
		}()
		time.Sleep(6 * time.Second)
		used := make(chan struct{})
		go func() {
			defer close(used)
			_ = fence.Use(t.Context(), message(fenceSubject+".other", "", "mine, too")) // it is tried again where it was cut off
		}()
		time.Sleep(6 * time.Second)
		late.Cut()
		if err := <-committed; !errors.Is(err, bus.ErrUnknownOutcome) || errors.Is(err, bus.ErrNotStored) {
			t.Errorf("got %v, want an unknown outcome", err)
		}
		<-used
		late.Arrive()
		synctest.Wait()
		if got := bodies(t, s.direct); !slices.Contains(got, "m-1") || !slices.Contains(got, "m-3") {
			t.Errorf("got %v, want what came in late, too: else this test shows nothing", got)
		}
	})
}

// Once the network is back, what was given up cannot be stored any more, although nobody commits anything.
func TestFence_MovesAfterAnUnknownOutcome(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		s := startStalling(t, dir, func(n *bustest.Network) nats.Option { return nats.InProcessServer(n) })
		c, fence := fenced(t, s.Bus)
		late := s.network.Stop()
		if _, err := c.Commit(t.Context(), expected(t, fence, messages(3, "m"))); !errors.Is(err, bus.ErrUnknownOutcome) {
			t.Fatalf("got %v, want an unknown outcome", err)
		}
		late.Cut()
		time.Sleep(10 * time.Second)
		late.Arrive()
		wantKept(t, s.direct, 0)
	})
}

// Messages that expect a fence which another has moved meanwhile are refused, and nothing else; those of an own move are not.
func TestFence_MovedByAnother(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus.Bus) {
		c, fence := fenced(t, b)
		commit := func(msgs []*nats.Msg) error { _, err := c.Commit(t.Context(), msgs); return err }
		own := expected(t, fence, messages(2, "own"))
		if err := fence.Move(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := commit(own); err != nil {
			t.Errorf("over an own move: %v", err)
		}
		for i := range 2 { // heard of by the refusal, and known then
			single, several := expected(t, fence, messages(1, fmt.Sprint("single-", i))), expected(t, fence, messages(3, fmt.Sprint("several-", i)))
			if _, err := b.JS.PublishMsg(t.Context(), message(fenceSubject, "", "theirs")); err != nil {
				t.Fatal(err)
			}
			if err := commit(single); !errors.Is(err, bus.ErrFenced) || !errors.Is(err, bus.ErrNotStored) {
				t.Errorf("over another's move: got %v", err)
			}
			if err := commit(several); !errors.Is(err, bus.ErrFenced) {
				t.Errorf("over another's move that is known: got %v", err)
			}
			if err := commit(expected(t, fence, messages(4, fmt.Sprint("after-", i)))); err != nil {
				t.Errorf("after another's move: %v", err)
			}
		}
		if got := kept(t, b); len(got) != 2+4+4 {
			t.Errorf("got %d stored, want 10: %v", len(got), got)
		}
	})
}

// Many commit at the same time over a fence, and a marker that is taken spoils its own request alone.
func TestFence_Together(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus.Bus) {
		c, fence := fenced(t, b)
		marked := func(prefix string) []*nats.Msg {
			marker := message("s.key.k", prefix+"/key", "marker")
			marker.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
			return expected(t, fence, append([]*nats.Msg{marker}, messages(2, prefix)...))
		}
		if _, err := c.Commit(t.Context(), marked("first")); err != nil {
			t.Fatal(err)
		}
		const n = 60
		results := make(chan error, n+1)
		for i := range n {
			msgs := expected(t, fence, messages(1+i%3, fmt.Sprint("m", i)))
			go func() { _, err := c.Commit(context.Background(), msgs); results <- err }()
		}
		go func() { _, err := c.Commit(context.Background(), marked("second")); results <- err }()
		refused := 0
		for range n + 1 {
			var wrong *bus.WrongLast
			switch err := <-results; {
			case errors.As(err, &wrong):
				refused++
			case err != nil:
				t.Error(err)
			}
		}
		if refused != 1 {
			t.Errorf("got %d refused, want the one whose key is taken", refused)
		}
		wantKept(t, b, 3+n/3*(1+2+3))
	})
}

// A fence whose message has aged out is put up again, and what had expected it is refused.
func TestFence_AgedOut(t *testing.T) {
	b := bustest.New(t)
	s := makeStream(t, b)
	c, fence := fenced(t, b)
	old := expected(t, fence, messages(1, "old"))
	if err := s.Purge(t.Context(), jetstream.WithPurgeSubject(fenceSubject)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Commit(t.Context(), old); !errors.Is(err, bus.ErrFenced) {
		t.Errorf("what expected it: got %v", err)
	}
	if _, err := c.Commit(t.Context(), expected(t, fence, messages(1, "new"))); err != nil {
		t.Errorf("afterwards: got %v", err)
	}
}

// A fence keeps up with the stream, so that the engine finds it among the newest messages, and is moved each day.
func TestFence_KeepsUp(t *testing.T) {
	dir := t.TempDir()
	bustest.Simulate(t, func(t *testing.T) {
		s := startStalling(t, dir, func(n *bustest.Network) nats.Option { return nats.InProcessServer(n) })
		c, fence := fenced(t, s.Bus)
		stands := func() uint64 {
			m, err := s.direct.LastForSubject(t.Context(), stream, fenceSubject)
			if err != nil {
				t.Fatal(err)
			}
			return m.Sequence
		}
		commit := func(msgs []*nats.Msg) {
			if _, err := c.Commit(t.Context(), msgs); err != nil {
				t.Fatal(err)
			}
		}
		first := stands()
		for i := range 12 {
			commit(expected(t, fence, messages(1000, fmt.Sprint("m", i))))
		}
		behind := stands()
		if behind == first {
			t.Error("it stands 12,000 messages behind the newest")
		}
		time.Sleep(25 * time.Hour)
		commit(expected(t, fence, messages(1, "nextday")))
		if stands() == behind {
			t.Error("it has not moved for a day")
		}
	})
}

// A decision that arrives late passes only if nothing was decided since: its own subject is its fence.
func TestPublishFenced_ArrivesLate(t *testing.T) {
	for _, decided := range []bool{true, false} {
		t.Run(fmt.Sprint("decided=", decided), func(t *testing.T) {
			dir := t.TempDir()
			bustest.Simulate(t, func(t *testing.T) {
				s := startStalling(t, dir, func(n *bustest.Network) nats.Option { return nats.InProcessServer(n) })
				first, err := s.PublishFenced(t.Context(), message("s.decision", "", "first"), 0)
				if err != nil {
					t.Fatal(err)
				}
				late := s.network.Stop()
				if _, err := s.PublishFenced(t.Context(), message("s.decision", "", "late"), first); !errors.Is(err, bus.ErrUnknownOutcome) {
					t.Fatalf("got %v, want an unknown outcome", err)
				}
				want := []string{"first", "late"}
				if decided {
					want[1] = "other"
					if _, err := s.direct.PublishFenced(t.Context(), message("s.decision", "", "other"), first); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(64 * time.Second)
				late.Arrive()
				if got := kept(t, s.direct); !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
			})
		})
	}
}
