// Package broadcast tells the other ingresses what this one sees: what it lets through, and which phones call. An ingress
// that misses a broadcast lets more requests through, or takes a phone for absent. Neither is worth rejecting a request.
package broadcast

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// Every is how often ingresses tell each other what was used of the rates, and which phones called.
	//
	// Limit: ingresses tell each other every 1 s what tokens used. Beyond it: a token may have more than its rate by
	// what it sends to several ingresses in this time.
	// Used up by: an account that sends to several ingresses. Hurts: nobody else. Test: TestRates_Shared.
	Every = time.Second
	// Limit: one message to the other ingresses has 10,000 entries, of tokens or of phones. What is more goes into the
	// next one.
	// Used up by: so many phones that call within a second. Hurts: nobody.
	mostEntries = 10_000
)

// Run broadcasts what news returns, and calls heard with what other ingresses broadcast, until ctx is done. news returns
// what is new since it was called last.
func Run(ctx context.Context, b *bus.Bus, log *zap.Logger, news func() request.Used, heard func(request.Used)) {
	self := nuid.Next()
	subscription, err := b.Conn.Subscribe(request.IngressUsed, func(m *nats.Msg) {
		var used request.Used
		if json.Unmarshal(m.Data, &used) == nil && used.By != self {
			heard(used)
		}
	})
	if err != nil {
		log.Warn("rates and calls of phones are not exchanged with other ingresses", zap.Error(err))
		return
	}
	defer func() { _ = subscription.Unsubscribe() }() // fails only when the connection is closed
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		used := news()
		for tokens := range slices.Chunk(used.Tokens, mostEntries) {
			tell(b, request.Used{By: self, Tokens: tokens})
		}
		for devices := range slices.Chunk(used.Devices, mostEntries) {
			tell(b, request.Used{By: self, Devices: devices})
		}
	}
}

func tell(b *bus.Bus, used request.Used) {
	if data, err := json.Marshal(used); err == nil {
		_ = b.Conn.Publish(request.IngressUsed, data)
	}
}
