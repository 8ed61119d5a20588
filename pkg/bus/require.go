package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// codeBatchTooLarge is the engine's error code for a batch beyond its limit.
const codeBatchTooLarge = 10199

// ErrTooSmall says that a limit in the engine's settings is too small for what is
// sent.
var ErrTooSmall = errors.New("the engine's settings are too small")

// Require checks that the engine takes messages of payload bytes, and atomic
// batches of batch messages on the stream of subject. If not, the error is
// ErrTooSmall and names the setting. Any other error means that this could not be
// found out. Nothing is stored: it sends the end of a batch that never began.
func (b *Bus) Require(ctx context.Context, subject string, payload int64, batch int) error {
	if got := b.Conn.MaxPayload(); got < payload {
		return fmt.Errorf("%w: max_payload is %d bytes and has to be %d or more: set max_payload: %d on every node", ErrTooSmall, got, payload, payload)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := b.Conn.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Header: nats.Header{
		batchIDHeader:       {nuid.Next()},
		batchSequenceHeader: {strconv.Itoa(batch)},
		batchCommitHeader:   batchCommit,
	}})
	if err != nil {
		return fmt.Errorf("look for the engine's limits: %w", err)
	}
	a, err := parseAck(answer)
	switch {
	case err != nil:
		return fmt.Errorf("look for the engine's limits: %w", err)
	case a.Error == nil:
		return fmt.Errorf("look for the engine's limits: a batch without a beginning was stored at %d", a.Seq)
	case a.Error.ErrorCode == codeBatchTooLarge:
		return fmt.Errorf("%w: the largest atomic batch has to be %d or more (%s): set jetstream { limits { batch { max_msgs: %d } } } on every node",
			ErrTooSmall, batch, a.Error.Description, batch)
	case a.Error.ErrorCode != codeIncompleteBatch:
		return fmt.Errorf("look for the engine's limits: %w", a.Error)
	}
	return nil
}
