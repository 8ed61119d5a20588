package bus_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// startCluster starts three engines that hold each other's streams, and gives a bus onto them.
func startCluster(t testing.TB) *bus.Bus {
	t.Helper()
	const nodes = 3
	ports := bustest.FreePorts(t, 2*nodes)
	var routes, urls []string
	for n := range nodes {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[n]))
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[nodes+n]))
	}
	for n := range nodes {
		engine, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("node-", n), Host: "127.0.0.1", Port: ports[n], NoSigs: true, NoLog: true, SyncAlways: syncs(t),
			JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 64 << 20,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[nodes+n]},
			Routes:  server.RoutesFromStr(strings.Join(routes, ",")),
		})
		if err != nil {
			t.Fatal(err)
		}
		engine.Start()
		t.Cleanup(func() {
			engine.Shutdown()
			engine.WaitForShutdown()
		})
	}
	conn, err := nats.Connect(strings.Join(urls, ","), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1))
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

// makeReplicas makes the stream on three nodes, once they are there.
func makeReplicas(t testing.TB, b *bus.Bus) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err := b.JS.CreateStream(ctx, jetstream.StreamConfig{
			Name: stream, Subjects: []string{"s.>"}, AllowAtomicPublish: true, AllowMsgTTL: true, AllowDirect: true,
			Discard: jetstream.DiscardNew, MaxBytes: 1 << 28, Replicas: 3,
		})
		cancel()
		if err == nil {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// onBoth runs a test on one engine, and on three that hold the stream together.
func onBoth(t *testing.T, f func(t *testing.T, b *bus.Bus)) {
	// After all that simulate time: nodes that end at once leave one behind, now and then, that reads the engine's.
	t.Parallel()
	t.Run("one", func(t *testing.T) {
		b := bustest.New(t)
		makeStream(t, b)
		f(t, b)
	})
	t.Run("three", func(t *testing.T) {
		b := startCluster(t)
		makeReplicas(t, b)
		f(t, b)
	})
}

// syncs says whether the engines sync: a benchmark's do, as in production.
func syncs(t testing.TB) bool {
	_, measured := t.(*testing.B)
	return measured
}
