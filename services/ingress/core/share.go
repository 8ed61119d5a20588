package core

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// shareEvery is how often ingresses tell each other what was used of the
	// rates: a token can have more than its rate by what it sends in this
	// time. Used up by an account at several ingresses, and it hurts nobody
	// else.
	shareEvery = time.Second
	// shareMost bounds the tokens of one message.
	shareMost = 10_000
)

// share tells other ingresses what this one lets through and who calls, and
// notes what they tell. Who does not hear of it lets more through: that is no
// reason to refuse anybody.
func (c *Core) share(ctx context.Context) {
	self := nuid.Next()
	heard, err := c.bus.Conn.Subscribe(request.IngressUsed, func(m *nats.Msg) {
		var told request.Used
		if json.Unmarshal(m.Data, &told) != nil || told.By == self {
			return
		}
		for _, one := range told.Tokens {
			c.rates.took(one, c.now())
		}
		for _, one := range told.Devices {
			c.presence.heard(one)
		}
	})
	if err != nil {
		c.log.Warn("rates are not shared with other ingresses", zap.Error(err))
		return
	}
	defer func() { _ = heard.Unsubscribe() }() // fails only when the connection is closed
	held, err := c.bus.Conn.Subscribe(request.IngressStorage, c.holdings.heard)
	if err != nil {
		c.log.Warn("accounts that hold too much are not known here", zap.Error(err))
		return
	}
	defer func() { _ = held.Unsubscribe() }()
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for tokens := range slices.Chunk(c.rates.use(), shareMost) {
			if data, err := json.Marshal(request.Used{By: self, Tokens: tokens}); err == nil {
				_ = c.bus.Conn.Publish(request.IngressUsed, data)
			}
		}
		for devices := range slices.Chunk(c.presence.tell(), shareMost) {
			if data, err := json.Marshal(request.Used{By: self, Devices: devices}); err == nil {
				_ = c.bus.Conn.Publish(request.IngressUsed, data)
			}
		}
	}
}
