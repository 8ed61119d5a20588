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

// errShare rejects messages and pulls of an account that has stored all that it may. Its reports are stored all the same:
// what a phone has sent must not be lost.
var errShare = &fault.Error{
	Kind: fault.Full, Code: "share_used", Text: "The account holds its share of the queue: room comes back as its messages grow older",
	RetryAfter: 5 * time.Minute,
}

// storage knows which accounts have stored nearly their share of a shard's streams, or more: dispatchers publish it
// once a second. What an account stores before they have seen it is not rejected.
type storage struct {
	mu  sync.Mutex
	all map[streams.Shard]map[streams.AccountID]request.Storage
}

func (s *storage) heard(msg *nats.Msg) {
	var use request.StorageUse
	if json.Unmarshal(msg.Data, &use) != nil {
		return
	}
	now := make(map[streams.AccountID]request.Storage, len(use.Accounts))
	for _, one := range use.Accounts {
		now[one.Account] = one
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[streams.Shard]map[streams.AccountID]request.Storage{}
	}
	s.all[use.Shard] = now
}

// of is what an account has stored, zero if it is little.
func (s *storage) of(shard streams.Shard, a streams.AccountID) request.Storage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[shard][a]
}

// mayEnqueue is the fault for an account that has used up its share of either stream: what is enqueued needs room in
// both.
func (s *storage) mayEnqueue(shard streams.Shard, a streams.AccountID) error {
	if s.of(shard, a).Over() {
		return errShare
	}
	return nil
}

// mayPull is the fault for an account that has used up its share of STATUS.
func (s *storage) mayPull(shard streams.Shard, a streams.AccountID) error {
	if s.of(shard, a).StatusOver {
		return errShare
	}
	return nil
}

// Stored says how many accounts have stored nearly their share of a stream or more, how many of them are rejected, and
// how much the largest of them has stored, in percent of what the others leave.
func (m *Messages) Stored() (near, over, most int) {
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
