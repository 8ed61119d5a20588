package streams

import (
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Deployment is what a deployment's streams are made of.
type Deployment struct {
	Shards          Shards
	Replicas        int   // of every stream and bucket
	EnqueueMaxBytes int64 // of one ENQUEUE stream; publishes beyond it are refused
	StatusMaxBytes  int64 // of one STATUS stream: its own, so that a full ENQUEUE never stops reports
}

// KeyTTL is how long a request's idempotency marker answers repeats. Markers
// count in the account's share of the stream: used up, only that account is
// refused.
//
// Limit: an Idempotency-Key answers repeats for 24 h. Beyond it: the same key is a new request.
// Used up by: one account: the markers of its keys count as its stored bytes. Hurts: that account alone. Test:
// TestKeyEndsAfterADay.
const KeyTTL = 24 * time.Hour

// Retention is how long ENQUEUE and STATUS keep their events: five days more than the horizon, so that a rebuild
// sees every event that a live projection still holds. Dispatchers purge what is older; the engine has no age, for
// that would go by a machine's clock.
//
// Limit: the streams keep their events for 35 days, and at most an hour longer; longer still while a dispatcher is
// away or the clock is in doubt. Beyond it: they are purged. A stream that is full stays full until then, and its
// senders get 503.
// Used up by: every message. Hurts: whoever needs to know what happened before. Test: TestMessagesAreForgotten.
const Retention = 35 * day

const (
	day = 24 * time.Hour
	// Each lane with work has a consumer; the engine's own default is 1,000.
	//
	// Limit: a stream has at most 1,000,000 consumers, one for each lane with work. Beyond it: pulls from new
	// lanes get 503.
	// Used up by: 160 accounts with a thousand phones in all lanes. Hurts: all accounts of the shard. Test:
	// TestDefinitionsAreGolden.
	maxConsumers = 1_000_000
)

// EnqueueStream names a shard's stream of accepted messages.
func EnqueueStream(shard Shard) string { return "ENQUEUE_" + shard.String() }

// Enqueue defines a shard's stream of accepted messages.
func (d Deployment) Enqueue(shard Shard) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        EnqueueStream(shard),
		Description: "Accepted messages, idempotency markers and quota's barriers",
		Subjects: []string{
			EnqueuedSubjects(shard),
			ScheduledSubjects(shard),
			"sms.key." + shard.String() + ".*.*",
			BarrierSubject(shard),
		},
		Retention: jetstream.LimitsPolicy,
		Storage:   jetstream.FileStorage,
		// Pulls read single messages out of the log: compressed blocks make
		// that eight times dearer.
		Compression: jetstream.NoCompression,
		Discard:     jetstream.DiscardNew,
		MaxBytes:    d.EnqueueMaxBytes,
		// No MaxAge: see Retention.
		//
		// Limit: the engine remembers the ids of messages for 30 s, which is longer than a commit is retried.
		// Beyond it: a packet that comes later is rejected by the fence; a sender that repeats needs an
		// Idempotency-Key.
		// Used up by: a network that delivers a packet so late. Hurts: nobody. Test: TestEnqueue_IDsTaken.
		Duplicates:         30 * time.Second,
		MaxMsgs:            -1,
		MaxMsgsPerSubject:  -1,
		MaxMsgSize:         -1,
		MaxConsumers:       maxConsumers,
		Replicas:           d.Replicas,
		AllowAtomicPublish: true,
		AllowMsgTTL:        true,
		AllowDirect:        true,
		Metadata:           d.metadata(),
	}
}

func (d Deployment) metadata() map[string]string {
	return map[string]string{shardsKey: strconv.Itoa(int(d.Shards))}
}

const shardsKey = "trunkline.shards"
