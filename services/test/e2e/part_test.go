package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/services/dispatcher"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/services/node"
	"github.com/trunkline-sms/trunkline/services/quota"
	"github.com/trunkline-sms/trunkline/streams"
)

// The variables that make this binary one part of Trunkline, in a process of its own, instead of tests.
const (
	roleVariable   = "TRUNKLINE_PART_ROLE" // engine, quota, dispatcher or ingress
	numberVariable = "TRUNKLINE_PART_NUMBER"
	dirVariable    = "TRUNKLINE_PART_DATA" // the engine's data directory
	shardsVariable = "TRUNKLINE_PART_SHARDS"
)

// bePart runs the part that the environment asks for, and ends the process. It returns if none is asked for.
func bePart() {
	role := os.Getenv(roleVariable)
	if role == "" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // which ends with the test
		os.Exit(1)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := runPart(ctx, role); err != nil {
		fmt.Fprintln(os.Stderr, role, "ended:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runPart(ctx context.Context, role string) error {
	dir := os.Getenv(dirVariable)
	number, err := strconv.Atoi(os.Getenv(numberVariable))
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(os.Getenv(shardsVariable))
	if err != nil {
		return err
	}
	log, shards := node.NewLog(os.Stderr, zapcore.DebugLevel), streams.Shards(n)
	if role == "engine" {
		return runEngine(ctx, dir, shards, log)
	}
	name := fmt.Sprintf("%s-%d", role, number)
	conn, err := natsd.Dial(dir, name)
	if err != nil {
		return err
	}
	defer conn.Close()
	b, err := bus.New(conn)
	if err != nil {
		return err
	}
	// Two of a kind must not share a file.
	own := filepath.Join(dir, "projections", name)
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	deps := service.Deps{Bus: b, Dir: own, Log: log, Metrics: prometheus.NewRegistry(), Now: time.Now}
	switch role {
	case "quota":
		return service.Run(ctx, quota.New(quota.DefaultConfig(), quota.Deps{Deps: deps, Shards: shards}))
	case "dispatcher":
		return service.Run(ctx, dispatcher.New(dispatcher.DefaultConfig(), dispatcher.Deps{Deps: deps, Shards: shards, Instance: number}))
	case "ingress":
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fmt.Printf("http://%s\n", listener.Addr())
		return service.Run(ctx, ingress.New(ingress.DefaultConfig(), ingress.Deps{
			Deps: deps, Shards: shards, Listener: listener, Version: "0.0.0-test", Gatherer: prometheus.NewRegistry(),
		}))
	}
	return fmt.Errorf("there is no part %q", role)
}

// runEngine runs the engine alone, and makes the streams on its first start.
func runEngine(ctx context.Context, dir string, shards streams.Shards, log *zap.Logger) error {
	engine, err := natsd.Start(natsd.Options{Dir: dir, Log: log})
	if err != nil {
		return err
	}
	defer engine.Stop()
	conn, err := engine.Connect("start")
	if err != nil {
		return err
	}
	b, err := bus.New(conn)
	if err != nil {
		return err
	}
	const room = 1 << 30
	deployment := streams.Deployment{Shards: shards, Replicas: 1, EnqueueMaxBytes: room, StatusMaxBytes: room}
	if err := streams.Ensure(ctx, b.JS, deployment, true); err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	return nil
}
