package releases

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// counted sums what the stream holds, and gives the number of events.
func counted(t *testing.T, b *bus.Bus, code streams.VersionCode) (sum int64, events int) {
	t.Helper()
	stream, err := b.JS.Stream(t.Context(), streams.ReleaseStream)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != streams.DownloadSubject(code) {
			continue
		}
		d, err := event.Decode[event.Downloaded](m.Data)
		if err != nil {
			t.Fatal(err)
		}
		sum += d.Count
		events++
	}
	return sum, events
}

func TestCounts(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		b := bustest.New(t)
		if _, err := b.JS.CreateStream(t.Context(), (streams.Deployment{Replicas: 1}).Release()); err != nil {
			t.Fatal(err)
		}
		var full atomic.Bool
		r := New(Options{
			Bus: b, Dir: t.TempDir(), Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Now: time.Now,
			Room: func() error {
				if full.Load() {
					return errors.New("the disk is full")
				}
				return nil
			},
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		synctest.Wait()

		// The first is stored at once.
		r.Downloaded(5)
		waitForCounts(t, b, 5, 1, 1)
		// A minute of downloads makes an event every few seconds.
		for range 600 {
			r.Downloaded(5)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(countEvery)
		if sum, events := counted(t, b, 5); sum != 601 || events > 14 {
			t.Errorf("got %d downloads in %d events, want 601 in at most 14", sum, events)
		}
		// Those of a disk without room wait.
		full.Store(true)
		r.Downloaded(6)
		r.Downloaded(6)
		time.Sleep(time.Minute)
		if sum, _ := counted(t, b, 6); sum != 0 {
			t.Errorf("got %d downloads stored although there is no room", sum)
		}
		full.Store(false)
		time.Sleep(2 * countEvery)
		if sum, events := counted(t, b, 6); sum != 2 || events != 1 {
			t.Errorf("got %d downloads in %d events, want 2 in one", sum, events)
		}
		// The last ones are stored when it stops.
		r.Downloaded(6)
		r.Downloaded(6)
		r.Downloaded(7)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if sum, _ := counted(t, b, 6); sum != 4 {
			t.Errorf("after the end: got %d downloads, want 4", sum)
		}
		if sum, _ := counted(t, b, 7); sum != 1 {
			t.Errorf("after the end: got %d downloads, want 1", sum)
		}
	})
}

// waitForCounts waits for so many downloads in so many events.
func waitForCounts(t *testing.T, b *bus.Bus, code streams.VersionCode, wantSum int64, wantEvents int) {
	t.Helper()
	consumer, err := b.JS.OrderedConsumer(t.Context(), streams.ReleaseStream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{streams.DownloadSubject(code)}})
	if err != nil {
		t.Fatal(err)
	}
	for range wantEvents {
		if _, err := consumer.Next(jetstream.FetchMaxWait(countEvery / 2)); err != nil {
			t.Fatal(err)
		}
	}
	if sum, events := counted(t, b, code); sum != wantSum || events != wantEvents {
		t.Errorf("got %d downloads in %d events, want %d in %d", sum, events, wantSum, wantEvents)
	}
}
