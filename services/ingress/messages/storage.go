package messages

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

// storage knows which accounts hold nearly their share of a shard's streams or
// more, as dispatchers said last. What an account stores in the second that they
// need to see it is not refused.
type storage struct {
	mu  sync.Mutex
	all map[streams.Shard]map[streams.AccountID]request.Share
}

func (s *storage) heard(msg *nats.Msg) {
	var told request.Shares
	if json.Unmarshal(msg.Data, &told) != nil {
		return
	}
	now := make(map[streams.AccountID]request.Share, len(told.Accounts))
	for _, one := range told.Accounts {
		now[one.Account] = one
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[streams.Shard]map[streams.AccountID]request.Share{}
	}
	s.all[told.Shard] = now
}

// of is an account's, zero if it holds little.
func (s *storage) of(shard streams.Shard, a streams.AccountID) request.Share {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[shard][a]
}

// mayEnqueue is the fault for an account that holds its share of either stream:
// what is enqueued needs room in both.
func (s *storage) mayEnqueue(shard streams.Shard, a streams.AccountID) error {
	if s.of(shard, a).Over() {
		return errShare
	}
	return nil
}

// mayPull is the fault for an account that holds its share of STATUS.
func (s *storage) mayPull(shard streams.Shard, a streams.AccountID) error {
	if s.of(shard, a).StatusOver {
		return errShare
	}
	return nil
}

// Holding says how many accounts hold nearly their share of a stream or more, how many of them are refused, and how
// much the first of them holds, in percent of what the others leave.
func (m *Messages) Holding() (near, over, most int) {
	m.storage.mu.Lock()
	defer m.storage.mu.Unlock()
	for _, accounts := range m.storage.all {
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
