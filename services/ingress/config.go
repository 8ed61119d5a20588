package ingress

import (
	"errors"
	"time"
)

// Config is what can be set about ingress.
type Config struct {
	BatchThreshold int           `yaml:"batch_threshold" doc:"Waiting messages from which on they are committed as one atomic batch; fewer go as pipelined singles. On a cluster, which gathers the syncs itself, 16 means never."`
	StopGrace      time.Duration `yaml:"stop_grace" doc:"How long requests in flight may take to finish when the server stops."`
}

// DefaultConfig is right for one machine.
func DefaultConfig() Config {
	return Config{BatchThreshold: 16, StopGrace: 4 * time.Second}
}

// Check says what is wrong with the settings.
func (c Config) Check() error {
	if c.BatchThreshold < 1 {
		return errors.New("batch_threshold: want at least 1")
	}
	if c.StopGrace <= 0 {
		return errors.New("stop_grace: want more than 0")
	}
	return nil
}
