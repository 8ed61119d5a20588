package releases

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

const (
	// Each count is an event that the stream keeps for ever, so there must not be one for every download.
	//
	// Limit: counts of downloads are stored every 5 s. Beyond it: they wait in memory.
	// Used up by: downloads that never end. Hurts: nobody: a server that is killed forgets so many.
	// Test: TestCounts.
	countEvery = 5 * time.Second
	// lastCounts bounds storing the last counts at a stop.
	lastCounts = 2 * time.Second
)

// counts are the downloads that are not stored yet.
type counts struct {
	more chan struct{} // has a token where some were added

	mu      sync.Mutex
	pending map[streams.VersionCode]int64

	// For storeCounts only: messages that were sent and not acknowledged. They are sent again with the same ids, so that
	// one that was stored after all is not counted twice.
	sent []*nats.Msg
}

func (c *counts) add(code streams.VersionCode) {
	c.mu.Lock()
	c.pending[code]++
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// take makes messages of the downloads that were added.
func (c *counts) take() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for code, count := range c.pending {
		msg, err := event.Message(streams.DownloadSubject(code), event.Downloaded{Code: code, Count: count})
		if err != nil {
			return err
		}
		msg.Header.Set(nats.MsgIdHdr, nuid.Next())
		c.sent = append(c.sent, msg)
		delete(c.pending, code)
	}
	return nil
}

// storeCounts stores the first download at once, and those that follow soon
// together.
func (r *Releases) storeCounts(ctx context.Context) {
	pause := time.NewTimer(countEvery)
	defer pause.Stop()
	for warned := false; ; {
		select {
		case <-r.counts.more:
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCounts)
			defer cancel()
			if err := r.flush(ctx); err != nil {
				r.log.Warn("downloads not counted", zap.Error(err))
			}
			return
		}
		err := r.flush(ctx)
		if err != nil {
			if !warned && ctx.Err() == nil {
				r.log.Warn("downloads not counted yet, trying again", zap.Error(err))
			}
			r.counts.again()
		}
		warned = err != nil
		pause.Reset(countEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

func (c *counts) again() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// flush stores the counts. Those that cannot be stored stay for the next time.
func (r *Releases) flush(ctx context.Context) error {
	if err := r.room(); err != nil {
		return err // the reserve is for reports
	}
	if err := r.send(ctx); err != nil {
		return err
	}
	if err := r.counts.take(); err != nil {
		return err
	}
	return r.send(ctx)
}

func (r *Releases) send(ctx context.Context) error {
	for len(r.counts.sent) > 0 {
		if err := r.publish(ctx, r.counts.sent[0]); err != nil {
			return err
		}
		r.counts.sent = r.counts.sent[1:]
	}
	return nil
}
