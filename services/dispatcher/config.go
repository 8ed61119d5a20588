package dispatcher

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/streams"
)

// Config is the dispatcher's settings.
type Config struct {
	MaxLeases    int           `yaml:"max_leases" doc:"Pages of messages that an account's phones may hold at once; a pull beyond it is rejected."`
	ConsumerIdle time.Duration `yaml:"consumer_idle" doc:"How long the engine keeps an account's consumer that nobody pulls from; the next pull creates it again."`
	AccountShare int           `yaml:"account_share" doc:"Percent that one account may store of what the others leave of a stream, ENQUEUE or STATUS; 100: all of it."`
	Shards       []string      `yaml:"shards" doc:"Shards that this dispatcher serves, as in 0-3, 7; empty: all. Each shard needs a dispatcher somewhere."`
}

// Check says what is wrong with the settings.
func (c Config) Check() error {
	if c.AccountShare < 1 || c.AccountShare > 100 {
		return fmt.Errorf("account_share: want 1 to 100, not %d", c.AccountShare)
	}
	_, err := c.serves(streams.MaxShards)
	return err
}

// serves lists the shards to serve of those that there are.
func (c Config) serves(there streams.Shards) ([]streams.Shard, error) {
	if len(c.Shards) == 0 {
		return there.All(), nil
	}
	var all []streams.Shard
	for _, text := range c.Shards {
		from, to, ranged := strings.Cut(text, "-")
		first, err := strconv.Atoi(from)
		last := first
		if ranged && err == nil {
			last, err = strconv.Atoi(to)
		}
		if err != nil || first < 0 || last < first || last >= int(there) {
			return nil, fmt.Errorf("shards: want numbers from 0 to %d, or some as in 0-3, not %q", there-1, text)
		}
		for n := first; n <= last; n++ {
			if shard := streams.Shard(n); !slices.Contains(all, shard) {
				all = append(all, shard)
			}
		}
	}
	return all, nil
}

// DefaultConfig is right for most.
func DefaultConfig() Config {
	return Config{
		// Limit: an account's phones hold 1,000 pages at once (`dispatcher.max_leases`). Beyond it: 429
		// `too_many_leases` with Retry-After.
		// Used up by: phones of one account that pull and do not report. Hurts: only that account.
		// Test: TestTooManyLeases.
		MaxLeases: 1000,
		// Limit: the engine keeps a consumer that nobody fetches from for 5 min (`dispatcher.consumer_idle`).
		// Beyond it: the next pull creates it again.
		// Used up by: a lane that rests. Hurts: nobody: that pull costs a little more.
		// Test: TestLostConsumerNeverSendsTwice.
		ConsumerIdle: 5 * time.Minute,
		// Limit: one account stores at most 90 % of what the others leave of ENQUEUE or STATUS
		// (`dispatcher.account_share`). Beyond it: 503 `share_used` with Retry-After 300 for its posts, and of STATUS
		// also for its pulls; its reports are stored.
		// Used up by: one account. Hurts: only that account: the others have the rest. Test: TestSharesOfStreams.
		AccountShare: 90,
		Shards:       []string{},
	}
}

// Deps is what a dispatcher stands on.
type Deps struct {
	service.Deps
	Shards   streams.Shards
	Instance int // tells the lease ids of several dispatchers apart, at most streams.MaxInstance
}
