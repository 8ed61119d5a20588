package quota

// Config is what can be set.
type Config struct {
	MaxOpenGrants int `yaml:"max_open_grants" doc:"Most grants that may be open at a time; what comes over it is told to try again."`
}

// DefaultConfig is what holds where nothing is set.
func DefaultConfig() Config {
	// A grant is open for as long as a message takes to be stored: a hundred
	// thousand are several seconds of work at full load. MaxOpenGrants is
	// used up by some 130 accounts with a limit at their worst: others with a
	// limit get 503.
	return Config{MaxOpenGrants: 100_000}
}
