package core

import (
	"context"

	"github.com/trunkline-sms/trunkline/streams"
)

// Sequence is where a message of the caller's account stands in the stream of its shard. It is a fault NotFound if the
// account has none.
func (c *Core) Sequence(ctx context.Context, caller Caller, id streams.MessageID) (uint64, error) {
	found, err := c.find(ctx, caller, id.String())
	if err != nil {
		return 0, c.refuse(err)
	}
	if found.Group != nil {
		for _, m := range found.Group.Messages {
			if m.ID == id {
				return m.Seq, nil
			}
		}
	}
	return 0, c.refuse(errNoGroup)
}
