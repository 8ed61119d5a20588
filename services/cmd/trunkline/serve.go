package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/trunkline-sms/trunkline/pkg/config"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/services/node"
	"github.com/trunkline-sms/trunkline/services/operator"
)

type serveCommand struct {
	Parts    []string `arg:"" optional:"" enum:"ingress,quota,dispatcher,version" help:"Parts to run in this process, over the cluster that --nats names: ingress, quota, dispatcher, version. None: all."`
	Data     string   `placeholder:"DIR" help:"Data directory (default ./data)."`
	HTTP     string   `name:"http" placeholder:"ADDRESS" help:"Address for senders and phones (default 127.0.0.1:8080)."`
	NATS     string   `name:"nats" placeholder:"URLS" help:"Nodes of a NATS cluster to join instead of embedding the engine, with commas between."`
	Config   string   `placeholder:"FILE" env:"TRUNKLINE_CONFIG" help:"Settings; configs/trunkline.yaml has them all."`
	Right    bool     `name:"clock-is-right" help:"The machine's clock is right, however far it is from when the data directory was used last."`
	LogLevel string   `placeholder:"LEVEL" help:"debug, info, warn or error (default info)."`
}

func (serveCommand) Help() string {
	return `Settings come from --config FILE, then from variables such as TRUNKLINE_HTTP, then from the flags.
The first start makes an account and prints its token. SIGTERM and SIGINT stop the server; requests in flight are
answered, and a second signal ends it at once.

With --nats, or nats.urls in the settings, no engine is embedded: parts of a deployment run apart over a cluster, any
number of each: trunkline serve ingress --nats tls://nats-1:4222,tls://nats-2:4222. Each waits for what it needs and says
so in /health/ready.

Example:

    trunkline serve --data ./data --http 127.0.0.1:8080`
}

// others are the variables that are no settings but belong to a flag.
var others = []string{"TRUNKLINE_CONFIG", "TRUNKLINE_URL", "TRUNKLINE_TOKEN"}

func (c *serveCommand) Run(ctx context.Context, t *operator.Terminal) error {
	cfg, err := c.settings(os.Environ())
	if err != nil {
		return err
	}
	log := node.NewLog(os.Stderr, cfg.Log.Level)
	defer endInTime(ctx, cfg.Ingress.StopGrace+stopMargin, log)()
	go service.BoundMemory(ctx)
	if len(cfg.NATS.URLs) > 0 {
		return node.RunParts(ctx, cfg, c.Parts, node.PartsDeps{
			Log:     log,
			Version: semantic(),

			ClockIsRight: c.Right,
			Listening: func(url string) {
				_, _ = fmt.Fprintf(t.Out, "Trunkline listens at %s\n", url)
			},
		})
	}
	if len(c.Parts) > 0 {
		return errors.New("parts run apart over a cluster only: name it with --nats, or name no part")
	}
	return node.Run(ctx, cfg, node.Deps{
		Log:     log,
		Version: semantic(),

		ClockIsRight: c.Right,
		Ready: func(s node.Started) {
			if err := node.Banner(t.Out, s); err != nil {
				log.Warn("not printed how to go on", zap.Error(err))
			}
		},
	})
}

// settings gives the defaults, changed by the file, the environment and the
// flags.
func (c *serveCommand) settings(env []string) (node.Config, error) {
	cfg := node.DefaultConfig()
	err := config.Load(&cfg, config.Options{File: c.Config, Explicit: true, Env: env, Others: others})
	if err != nil {
		return cfg, err
	}
	if c.Data != "" {
		cfg.Data = c.Data
	}
	if c.HTTP != "" {
		cfg.HTTP = c.HTTP
	}
	if c.NATS != "" {
		cfg.NATS.URLs = strings.Split(c.NATS, ",")
	}
	if c.LogLevel != "" {
		level, err := zapcore.ParseLevel(c.LogLevel)
		if err != nil {
			return cfg, errors.New("log-level: want debug, info, warn or error")
		}
		cfg.Log.Level = level
	}
	return cfg, nil
}

// stopMargin is what the engine may take to stop after the last request.
//
// Limit: a stop takes at most 1 s after the last request. Beyond it: the process ends with exit code 1; nothing
// that was answered is lost.
// Used up by: the operator. Hurts: nobody else. Test: TestServeNamesHandlersThatDoNotEnd.
const stopMargin = time.Second

// endInTime ends the process when it has not ended by itself for so long after
// ctx. Whoever is left then loses nothing that was answered.
func endInTime(ctx context.Context, limit time.Duration, log *zap.Logger) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		time.Sleep(limit)
		log.Error("did not stop in time", zap.Duration("after", limit))
		fmt.Fprintln(os.Stderr, "trunkline: the server did not stop in time and was ended; nothing that was answered is lost")
		os.Exit(1)
	})
}
