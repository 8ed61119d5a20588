package e2e

import (
	"context"
	"flag"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

var throughputFor = flag.Duration("throughput", 0, "measure what a cluster accepts, each figure for so long; 0: do not")

// burden is senders that each wait for an answer before they post the next request.
type burden struct{ senders, messages int }

func (l burden) String() string { return fmt.Sprintf("%d x %d", l.senders, l.messages) }

var loads = []burden{{64, 1}, {256, 1}, {16, 20}, {16, 200}}

// What 1, 2 and 4 ingresses of a cluster on this machine accept, beside the all-in-one server and what the cluster itself
// takes from the same code without HTTP. It asserts nothing: it prints a table.
func TestCluster_Throughput(t *testing.T) {
	if *throughputFor == 0 {
		t.Skip("takes minutes: make throughput")
	}
	var lines []string
	measured := func(what string, rate func(l burden) float64) {
		line := fmt.Sprintf("| %s |", what)
		for _, l := range loads {
			line += fmt.Sprintf(" %.0f |", rate(l))
		}
		lines = append(lines, line)
		t.Log(line)
	}
	t.Run("all in one", func(t *testing.T) {
		s := launch(t, process, 1)
		token := s.account("load", nil)
		measured("all in one, one disk", func(l burden) float64 { return postRate(t, []string{s.url}, token, l) })
	})
	for _, n := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var h *clusterHost
			s := launch(t, func(dir string, shards int) host {
				h = newCluster(dir, shards, kind{"quota", 1}, kind{"dispatcher", 1}, kind{"ingress", n})
				return h
			}, 1)
			token := s.account("load", nil)
			if n == 1 {
				measured("raw cluster", func(l burden) float64 { return s.rawRate(l) })
			}
			measured(fmt.Sprintf("%d ingress", n), func(l burden) float64 { return postRate(t, h.urls(), token, l) })
		})
	}
	average, _ := os.ReadFile("/proc/loadavg")
	t.Logf("messages a second, %v each, load of the machine at the end %s\n| senders x messages a request | %v |\n%s",
		*throughputFor, strings.TrimSpace(string(average)), loads, strings.Join(lines, "\n"))
}

// rateOf runs post in each sender for the time asked, and gives messages a second.
func rateOf(l burden, post func(ctx context.Context, sender, request int) bool) float64 {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var accepted atomic.Int64
	var all sync.WaitGroup
	for sender := range l.senders {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if post(ctx, sender, n) {
					accepted.Add(int64(l.messages))
				}
			}
		})
	}
	rest(ctx, *throughputFor/5) // warms up
	begun, before := time.Now(), accepted.Load()
	rest(ctx, *throughputFor)
	rate := float64(accepted.Load()-before) / time.Since(begun).Seconds()
	stop()
	all.Wait()
	return rate
}

func postRate(t *testing.T, urls []string, token string, l burden) float64 {
	t.Helper()
	client := newClient()
	defer client.CloseIdleConnections()
	one := `{"phone":"` + number(1) + `","message":"` + strings.Repeat("x", 100) + `"}`
	body := "[" + one + strings.Repeat(","+one, l.messages-1) + "]"
	return rateOf(l, func(_ context.Context, sender, _ int) bool {
		got, err := api{context.Background(), client, urls[sender%len(urls)] + "/api/" + token}.do(http.MethodPost, "/queue", body)
		return err == nil && got.status == http.StatusOK
	})
}

// rawRate is what the cluster's stream takes from the committer alone.
func (s *trunkline) rawRate(l burden) (rate float64) {
	s.Helper()
	s.withBus(func(b *bus.Bus) {
		ctx, stop := context.WithCancel(s.Context())
		committer := bus.NewCommitter(b, streams.EnqueueStream(0), bus.CommitterOptions{Threshold: math.MaxInt})
		var running sync.WaitGroup
		running.Go(func() { _ = committer.Run(ctx) })
		subject := streams.EnqueueSubject(0, streams.AccountIDOf("raw"), streams.Lane{Priority: streams.Normal, Class: streams.Text})
		ids := streams.NewIDs(time.Now, 1000, time.Now())
		rate = rateOf(l, func(_ context.Context, _, _ int) bool {
			msgs := make([]*nats.Msg, l.messages)
			for i := range msgs {
				id := ids.Message()
				m, err := event.Message(subject, event.Enqueued{ID: id, Phone: "+15550000001", Text: event.Private(strings.Repeat("x", 100)), Month: "2026-11"})
				if err != nil {
					return false
				}
				m.Header[jetstream.MsgIDHeader] = []string{id.String()}
				msgs[i] = m
			}
			_, err := committer.Commit(context.Background(), msgs)
			return err == nil
		})
		stop()
		running.Wait()
	})
	return rate
}
