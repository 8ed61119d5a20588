package quota

// Config is what can be set of quota.
type Config struct {
	MaxOpenGrants int `yaml:"max_open_grants" doc:"Most grants that may be open at a time; requests beyond that are told to try again."`
}

// DefaultConfig is used where nothing is set.
func DefaultConfig() Config {
	// A grant is open while its messages are being stored: a hundred thousand are
	// several seconds of work at full load.
	//
	// Limit: 100,000 grants are open at a time (quota.max_open_grants). Beyond it: 503
	// quota_unavailable.
	// Used up by: some 130 accounts with a limit together, at their worst. Hurts: all
	// accounts with a limit. Test: TestOpenGrantsAreBounded.
	return Config{MaxOpenGrants: 100_000}
}
