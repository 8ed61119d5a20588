package node

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/streams"
)

// engine starts a server as somebody else may have set it up.
func engine(t *testing.T, payload int32, batch int) *bus.Bus {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, MaxPayload: payload, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: t.TempDir(), JetStreamLimits: natsserver.JSLimitOpts{MaxBatchSize: batch},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the engine does not start")
	}
	conn, err := nats.Connect(s.ClientURL())
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

func makeStreams(t *testing.T, b *bus.Bus) {
	t.Helper()
	const room = 1 << 20
	d := streams.Deployment{Shards: 2, Replicas: 1, EnqueueMaxBytes: room, StatusMaxBytes: room}
	if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
		t.Fatal(err)
	}
}

func joining(t *testing.T, b *bus.Bus) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Data, cfg.HTTP, cfg.NATS.URLs = t.TempDir(), "127.0.0.1:0", []string{b.Conn.ConnectedUrl()}
	return cfg
}

// A cluster that cannot carry what is sent is refused with a sentence that says what to set.
func TestEngineTooSmall(t *testing.T) {
	for name, test := range map[string]struct {
		payload int32
		batch   int
		want    string
	}{
		"messages": {1 << 20, natsd.MaxBatchSize, "max_payload: 8388608"},
		"batches":  {natsd.MaxPayload, 1000, "max_msgs: 1024"},
	} {
		t.Run(name, func(t *testing.T) {
			b := engine(t, test.payload, test.batch)
			makeStreams(t, b)
			for _, part := range []string{Ingress, Quota, Dispatcher} {
				err := RunParts(t.Context(), joining(t, b), []string{part}, PartsDeps{Log: zap.NewNop(), Version: "0.0.0-test"})
				if !errors.Is(err, bus.ErrTooSmall) || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s: got %v, want a refusal that says %q", part, err, test.want)
				}
			}
		})
	}
}

// Parts that come before the streams wait for them, say so, and send who calls away to come again.
func TestWaitsForStreams(t *testing.T) {
	b := engine(t, natsd.MaxPayload, natsd.MaxBatchSize)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	url, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- RunParts(ctx, joining(t, b), nil, PartsDeps{Log: zap.NewNop(), Version: "0.0.0-test", Listening: func(at string) { url <- at }})
	}()
	at := <-url
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	status := func(path string) (int, string) {
		got, err := client.Get(at + path)
		if err != nil {
			return 0, ""
		}
		defer got.Body.Close()
		return got.StatusCode, got.Header.Get("Retry-After")
	}
	if got, _ := status("/health/ready"); got != http.StatusServiceUnavailable {
		t.Errorf("health before the streams: got %d, want 503", got)
	}
	if got, after := status("/api/x/get_messages"); got != http.StatusServiceUnavailable || after == "" {
		t.Errorf("a phone before the streams: got %d and Retry-After %q, want 503 and when to come again", got, after)
	}
	if got, _ := status("/health/live"); got != http.StatusOK {
		t.Errorf("life before the streams: got %d, want 200", got)
	}
	makeStreams(t, b)
	over := time.After(time.Minute)
	for got := 0; got != http.StatusOK; got, _ = status("/health/ready") {
		select {
		case <-over:
			t.Fatal("not ready a minute after the streams were made")
		case err := <-ended:
			t.Fatalf("ended with %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}
