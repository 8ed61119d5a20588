package core

import (
	"context"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Sequence is where a message of the caller's account stands in the stream of its shard. It is a fault NotFound if the
// account has none, or the stream has it no more.
func (c *Core) Sequence(ctx context.Context, caller Caller, id streams.MessageID) (uint64, error) {
	account := caller.Account.ID
	shard := c.shards.Of(account)
	shown, err := lookUp[request.Shown](ctx, c, request.DispatcherShow(shard), request.Show{Account: account, ID: id})
	if err != nil {
		return 0, c.refuse(err)
	}
	for _, moment := range shown.Timeline {
		if moment.Stream == streams.EnqueueStream(shard) {
			return moment.Seq, nil
		}
	}
	return 0, c.refuse(errNoGroup)
}
