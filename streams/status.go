package streams

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// StatusStream names a shard's stream of decisions and reports.
func StatusStream(shard Shard) string { return "STATUS_" + shard.String() }

// Status defines a shard's stream of decisions and reports.
func (d Deployment) Status(shard Shard) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        StatusStream(shard),
		Description: "What dispatchers decided and phones reported",
		Subjects: []string{
			"sms.status." + shard.String() + ".*.decision",
			"sms.status." + shard.String() + ".*.report",
			HorizonSubject(shard),
		},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Compression: jetstream.NoCompression, // the engine spoils compressed blocks (docs/adr/0014)
		Discard:     jetstream.DiscardNew,
		MaxBytes:    d.StatusMaxBytes,
		// No MaxAge: see Retention.
		Duplicates:         2 * time.Minute,
		MaxMsgs:            -1,
		MaxMsgsPerSubject:  -1,
		MaxMsgSize:         -1,
		MaxConsumers:       maxConsumers,
		Replicas:           d.Replicas,
		AllowAtomicPublish: true,
		AllowDirect:        true,
		Metadata:           d.metadata(),
	}
}
