package dispatcher

import (
	"time"

	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/streams"
)

// Config is the dispatcher's settings.
type Config struct {
	MaxLeases    int           `yaml:"max_leases" doc:"Pages of messages that an account's phones may hold at once; a pull beyond it is refused."`
	ConsumerIdle time.Duration `yaml:"consumer_idle" doc:"How long the engine keeps an account's consumer that nobody pulls from; the next pull makes it again."`
}

// DefaultConfig is right for most.
func DefaultConfig() Config {
	return Config{MaxLeases: 1000, ConsumerIdle: 5 * time.Minute}
}

// Deps is what a dispatcher stands on.
type Deps struct {
	service.Deps
	Shards   streams.Shards
	Instance int // tells the lease ids of several dispatchers apart, at most streams.MaxInstance
}
