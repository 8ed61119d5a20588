package bus_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// What a committer has stored itself is found again as what others have: the message next to it is the first that is
// looked at.
func TestCommit_LostAnswerAfterOwn(t *testing.T) {
	for name, n := range map[string]struct{ before, lost int }{
		"single after a single": {1, 1}, "single after a batch": {5, 1}, "batch after a single": {1, 5}, "batch after a batch": {20, 20},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			bustest.Simulate(t, func(t *testing.T) {
				l := startLossy(t, dir)
				makeStream(t, l.Bus)
				c := bus.NewCommitter(l.Bus, stream, bus.CommitterOptions{})
				defer start(t, c.Run)()
				if _, err := c.Commit(context.Background(), messages(n.before, "s")); err != nil {
					t.Fatal(err)
				}
				l.silent.Store(true)
				l.loseAnswers(1)
				mine := messages(n.lost, "t")
				got, err := c.Commit(context.Background(), mine)
				if want := (bus.Stored{First: uint64(n.before) + 1, Count: n.lost}); err != nil || got != want {
					t.Errorf("got %+v, %v, want %+v", got, err, want)
				}
				if got := len(bodies(t, l.Bus)); got != n.before+n.lost {
					t.Errorf("got %d messages, want %d", got, n.before+n.lost)
				}
			})
		})
	}
}

// mute is a connection that loses publishes to the stream, and tells where their answers were wanted.
type mute struct {
	*lossy
	lost chan string
	left int
}

func (m *mute) InProcessConn() (net.Conn, error) {
	conn, err := m.server.InProcessConn()
	return &muteConn{conn, m}, err
}

type muteConn struct {
	net.Conn
	m *mute
}

func (c *muteConn) Write(p []byte) (int, error) {
	if c.m.left > 0 && bytes.Contains(p, []byte("PUB s.")) {
		c.m.left--
		line, _, _ := strings.Cut(string(p[bytes.LastIndex(p, []byte("PUB s.")):]), "\r\n")
		c.m.lost <- strings.Fields(line)[2]
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// While an attempt is under way, the refusal of an earlier one says nothing: this one may be stored yet. That an
// earlier one was stored says all.
func TestCommit_LateAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		late string
		want bus.Stored
		all  []string
	}{
		"refusal: full":      {`{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}`, bus.Stored{First: 2, Count: 1}, []string{"other-1", "a-1"}},
		"refusal: wrong":     {`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 7"}}`, bus.Stored{First: 2, Count: 1}, []string{"other-1", "a-1"}},
		"refusal: duplicate": {`{"stream":"S","seq":1,"duplicate":true}`, bus.Stored{First: 2, Count: 1}, []string{"other-1", "a-1"}},
		"no answer":          {`?`, bus.Stored{First: 2, Count: 1}, []string{"other-1", "a-1"}},
		"stored":             {`{"stream":"S","seq":9}`, bus.Stored{First: 9, Count: 1}, []string{"other-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			bustest.Simulate(t, func(t *testing.T) {
				m := &mute{lost: make(chan string, 2)}
				m.lossy = startBy(t, dir, func(l *lossy) nats.Option {
					m.lossy = l
					return nats.InProcessServer(m)
				})
				makeStream(t, m.Bus)
				other, err := m.server.Connect("other")
				if err != nil {
					t.Fatal(err)
				}
				defer other.Close()
				c := bus.NewCommitter(m.Bus, stream, bus.CommitterOptions{})
				defer start(t, c.Run)()
				if _, err := c.Commit(context.Background(), messages(1, "other")); err != nil {
					t.Fatal(err)
				}
				m.left = 2 // attempts that never arrive
				answered := make(chan struct{})
				go func() {
					defer close(answered)
					earlier := <-m.lost
					<-m.lost
					time.Sleep(time.Second) // of simulated time: the second attempt is under way
					if err := other.Publish(earlier, []byte(test.late)); err != nil {
						t.Error(err)
					}
				}()
				got, err := c.Commit(context.Background(), messages(1, "a"))
				if err != nil || got != test.want {
					t.Errorf("got %+v, %v, want %+v", got, err, test.want)
				}
				<-answered
				if diff := cmp.Diff(test.all, bodies(t, m.Bus)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}
