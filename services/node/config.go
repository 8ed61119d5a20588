package node

import (
	"fmt"

	"go.uber.org/zap/zapcore"

	"github.com/trunkline-sms/trunkline/pkg/config"
	"github.com/trunkline-sms/trunkline/services/dispatcher"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/services/quota"
	"github.com/trunkline-sms/trunkline/streams"
)

// Config is every setting of a server. configs/trunkline.yaml lists them.
type Config struct {
	HTTP       string            `yaml:"http" doc:"Address that senders and phones reach the server at; :8080 listens on every network."`
	Data       string            `yaml:"data" doc:"Data directory: streams, projections and keys; only one server may run on it."`
	Engine     Engine            `yaml:"engine" doc:"The engine that keeps the streams."`
	NATS       NATS              `yaml:"nats" doc:"The cluster that parts meet in which run apart; without urls the engine is embedded."`
	Log        Log               `yaml:"log" doc:"The log, on standard error: lines for people on a terminal, else JSON."`
	Ingress    ingress.Config    `yaml:"ingress" doc:"The HTTP side."`
	Quota      quota.Config      `yaml:"quota" doc:"Monthly limits."`
	Dispatcher dispatcher.Config `yaml:"dispatcher" doc:"Leases and what becomes of them."`
}

// Engine is the settings of the embedded engine.
type Engine struct {
	Durability      string      `yaml:"durability" doc:"What an answer to a sender means: sync (it is on the disk) or process (a power cut may lose what came last)."`
	MaxStore        config.Size `yaml:"max_store" doc:"Most bytes of all streams together; 0 leaves it to the streams' own limits."`
	EnqueueMaxBytes config.Size `yaml:"enqueue_max_bytes" doc:"Most bytes of messages that a shard keeps, 300 or so a message for 35 days; beyond it senders get 503; fixed when the data directory is made."`
	StatusMaxBytes  config.Size `yaml:"status_max_bytes" doc:"Most bytes of leases and reports that a shard keeps; fixed when the data directory is made."`
	ReservePercent  int         `yaml:"reserve_percent" doc:"Percent of the disk that senders' messages leave free, so that reports still fit: below it senders get 503; 0 leaves only reserve_min."`
	ReserveMin      config.Size `yaml:"reserve_min" doc:"Least that senders' messages leave free on the disk; with both 0 nothing is kept, and a full disk stops everything."`
	Shards          int         `yaml:"shards" doc:"Pairs of streams that accounts are spread over, 1 to 64; 1 is best on one disk; fixed when the data directory is made."`
}

// NATS is the settings of parts that run apart.
type NATS struct {
	URLs  []string `yaml:"urls" doc:"Addresses of the cluster's nodes, as in tls://nats-1:4222; none: the engine is embedded and all parts run in this process."`
	NKey  string   `yaml:"nkey" doc:"File with the seed of the nkey; a directory has one for each part, as in ingress.nk."`
	Creds string   `yaml:"creds" doc:"File with credentials, instead of an nkey."`
	CA    string   `yaml:"ca" doc:"File with the certificates that the nodes are checked by; none: the system's."`
	Cert  string   `yaml:"cert" doc:"File with the own certificate, where the nodes ask for one."`
	Key   string   `yaml:"key" doc:"File with the key of the own certificate."`
}

// Log is the settings of the log.
type Log struct {
	Level zapcore.Level `yaml:"level" doc:"What is logged: debug, info, warn or error, each with all that is worse."`
}

// DefaultConfig is what holds where nothing is set.
func DefaultConfig() Config {
	return Config{
		HTTP: "127.0.0.1:8080",
		Data: "./data",
		Engine: Engine{
			Durability: "sync",
			// Limit: the messages of a shard take at most 16 GiB unless engine.enqueue_max_bytes says otherwise.
			// Beyond it: 503 queue_full with Retry-After 30 for posts; pulls and reports go on.
			// Used up by: all accounts together, each within its own bound. Hurts: the senders of the shard. Test:
			// TestIngress_Full.
			EnqueueMaxBytes: 16 << 30,
			// Limit: the leases and reports of a shard take at most 8 GiB unless engine.status_max_bytes says
			// otherwise. Beyond it: 503 queue_full for pulls and reports.
			// Used up by: all accounts together, each within its own bound. Hurts: the phones of the shard. Test:
			// TestDisk_FullStream.
			StatusMaxBytes: 8 << 30,
			// Limit: senders leave 5 % of the disk free unless engine.reserve_percent says otherwise. Beyond it:
			// 503 queue_full with Retry-After 30 for posts; pulls and reports go on.
			// Used up by: all senders together, and whatever else writes to the disk. Hurts: all senders. Test:
			// TestDisk_NearlyFull.
			ReservePercent: 5,
			// Limit: senders leave at least 128 MiB of the disk free unless engine.reserve_min says otherwise.
			// Beyond it: 503 queue_full with Retry-After 30 for posts; pulls and reports go on.
			// Used up by: all senders together, and whatever else writes to the disk. Hurts: all senders. Test:
			// TestDisk_Thresholds.
			ReserveMin: 128 << 20,
			Shards:     1,
		},
		NATS:       NATS{URLs: []string{}},
		Log:        Log{Level: zapcore.InfoLevel},
		Ingress:    ingress.DefaultConfig(),
		Quota:      quota.DefaultConfig(),
		Dispatcher: dispatcher.DefaultConfig(),
	}
}

const minMaxBytes = 1 << 20

// Check says what is wrong with the settings.
func (c Config) Check() error {
	e := c.Engine
	switch {
	case c.HTTP == "":
		return fmt.Errorf("http: want an address, as in 127.0.0.1:8080")
	case c.Data == "":
		return fmt.Errorf("data: want a directory, as in ./data")
	case e.Durability != "sync" && e.Durability != "process":
		return fmt.Errorf("engine.durability: want sync or process, not %q", e.Durability)
	case e.Shards < 1 || e.Shards > streams.MaxShards:
		return fmt.Errorf("engine.shards: want 1 to %d, not %d", streams.MaxShards, e.Shards)
	case e.EnqueueMaxBytes < minMaxBytes || e.StatusMaxBytes < minMaxBytes:
		return fmt.Errorf("engine.enqueue_max_bytes and engine.status_max_bytes: want %v or more", config.Size(minMaxBytes))
	case e.ReservePercent < 0 || e.ReservePercent > 90:
		return fmt.Errorf("engine.reserve_percent: want 0 to 90, not %d", e.ReservePercent)
	case e.ReserveMin < 0:
		return fmt.Errorf("engine.reserve_min: want 0 or more")
	case e.MaxStore != 0 && e.MaxStore < config.Size(e.Shards)*(e.EnqueueMaxBytes+e.StatusMaxBytes)+streams.ReleaseBytes:
		return fmt.Errorf("engine.max_store: want 0, or at least what the limits of %d shards and %v for app releases add up to",
			e.Shards, config.Size(streams.ReleaseBytes))
	}
	if err := c.Ingress.Check(); err != nil {
		return fmt.Errorf("ingress.%w", err)
	}
	if err := c.Dispatcher.Check(); err != nil {
		return fmt.Errorf("dispatcher.%w", err)
	}
	return nil
}
