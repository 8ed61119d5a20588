package core

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// errShare refuses what an account wants to store that holds its share. Reports
// are never refused so.
var errShare = &fault.Error{
	Kind: fault.Full, Code: "share_used", Text: "The account holds its share of the queue: room comes back as its messages grow older",
	RetryAfter: 5 * time.Minute,
}

// holdings knows which accounts hold nearly their share of a shard's streams or
// more, as dispatchers said last. What an account stores in the second that they
// need to see it is not refused.
type holdings struct {
	mu  sync.Mutex
	all map[streams.Shard]map[streams.AccountID]request.Storage
}

func (h *holdings) heard(m *nats.Msg) {
	var told request.StorageUse
	if json.Unmarshal(m.Data, &told) != nil {
		return
	}
	now := make(map[streams.AccountID]request.Storage, len(told.Accounts))
	for _, one := range told.Accounts {
		now[one.Account] = one
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = map[streams.Shard]map[streams.AccountID]request.Storage{}
	}
	h.all[told.Shard] = now
}

// of is an account's, zero if it holds little.
func (h *holdings) of(shard streams.Shard, a streams.AccountID) request.Storage {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[shard][a]
}

// mayEnqueue is the fault for an account that holds its share of either stream:
// what is enqueued needs room in both.
func (h *holdings) mayEnqueue(shard streams.Shard, a streams.AccountID) error {
	if h.of(shard, a).Over() {
		return errShare
	}
	return nil
}

// mayPull is the fault for an account that holds its share of STATUS.
func (h *holdings) mayPull(shard streams.Shard, a streams.AccountID) error {
	if h.of(shard, a).StatusOver {
		return errShare
	}
	return nil
}

// Holding says how many accounts hold nearly their share of a stream or more, how many of them are refused, and how
// much the first of them holds, in percent of what the others leave.
func (c *Core) Holding() (near, over, most int) {
	c.holdings.mu.Lock()
	defer c.holdings.mu.Unlock()
	for _, accounts := range c.holdings.all {
		for _, one := range accounts {
			near++
			if one.Over() {
				over++
			}
			most = max(most, one.Enqueue, one.Status)
		}
	}
	return near, over, most
}
