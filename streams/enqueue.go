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
const KeyTTL = 24 * time.Hour

// Retention is how long ENQUEUE and STATUS keep their events: five days more
// than the horizon, so that a rebuild sees every event that a live projection
// still holds. Dispatchers purge what is older; the engine has no age, for that
// would go by a machine's clock. Passed by every event; an account that stores
// much has its share of the room meanwhile.
const Retention = 35 * day

const (
	day = 24 * time.Hour
	// Each lane with work has a consumer; the engine's own default is 1,000.
	// Used up by 160 accounts with a thousand phones in all lanes:
	// everybody's pulls from new lanes fail.
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
		// Used up by a packet that comes later, which the fence refuses.
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
