package e2e

import (
	"context"
	"net"
	"net/http"
	"os"
	"testing"

	"go.uber.org/zap/zapcore"

	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/services/node"
)

// insideHost runs Trunkline in this process.
type insideHost struct {
	cfg       node.Config
	simulated bool
	log       *os.File
	cancel    context.CancelFunc
	ended     chan error
}

// inside runs Trunkline in this process, as it is otherwise: with sockets and with the disk's time.
func inside(dir string, shards int) host {
	cfg := node.DefaultConfig()
	cfg.Data = dir
	cfg.Engine.Shards = shards
	return &insideHost{cfg: cfg}
}

// simulated runs Trunkline in a bubble of simulated time, where no command reaches it.
func simulated(dir string, shards int) host {
	h := inside(dir, shards).(*insideHost)
	h.simulated = true
	return h
}

func (h *insideHost) start(t *testing.T) started {
	t.Helper()
	h.log = logs.open(t)
	deps := node.Deps{Log: node.NewLog(h.log, zapcore.DebugLevel), Version: "0.0.0-test", InProcessOnly: h.simulated}
	var begun started
	if h.simulated {
		memory := httpx.NewMemory()
		deps.Listener, begun.client = memory, memory.Client()
	} else {
		listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		deps.Listener, begun.client = listener, newClient()
	}
	deps.Client = begun.client
	ready := make(chan node.Started, 1)
	deps.Ready = func(s node.Started) { ready <- s }
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	h.cancel, h.ended = cancel, make(chan error, 1)
	go func() { h.ended <- node.Run(ctx, h.cfg, deps) }()
	select {
	case s := <-ready:
		begun.url, begun.token = s.URL, s.Token.Reveal()
	case err := <-h.ended:
		cancel()
		t.Fatalf("the server did not start: %v", err)
	}
	return begun
}

func (h *insideHost) stop(t *testing.T) {
	t.Helper()
	h.cancel()
	if err := <-h.ended; err != nil {
		t.Errorf("the server ended with: %v", err)
	}
	if err := h.log.Close(); err != nil {
		t.Error(err)
	}
}

func (h *insideHost) kill(t *testing.T) {
	t.Helper()
	t.Fatal("what runs in this process cannot be killed")
}

// newClient makes a client that keeps enough connections for a burst.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 512}}
}
