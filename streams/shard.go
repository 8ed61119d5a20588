package streams

import "strconv"

// Shard is one pair of streams, ENQUEUE_<shard> and STATUS_<shard>.
type Shard int

// String gives the shard's number, as it stands in stream names and subjects.
func (s Shard) String() string { return strconv.Itoa(int(s)) }

// PlaceNumber is the number of a place in a shard's ENQUEUE stream: what SMS
// Nodes senders know their messages by.
func PlaceNumber(shard Shard, seq uint64) uint64 { return seq*MaxShards + uint64(shard) }

// ParsePlaceNumber gives the place of a number.
func ParsePlaceNumber(n uint64) (Shard, uint64) { return Shard(n % MaxShards), n / MaxShards }

// Shards is how many shards a deployment has, fixed when it begins.
type Shards int

// MaxShards is the most shards that a deployment can have.
//
// Limit: a deployment has 1 to 64 shards. Beyond it: the start fails.
// Used up by: the operator. Hurts: nobody else. Test: TestConfigRefuses.
const MaxShards = 64

// Of is the shard that holds everything of an account.
func (n Shards) Of(account AccountID) Shard {
	// An account's id is a hash already.
	return Shard(uint64(account) % uint64(n))
}

// All lists the shards in order.
func (n Shards) All() []Shard {
	all := make([]Shard, n)
	for i := range all {
		all[i] = Shard(i)
	}
	return all
}
