// Package bus speaks to NATS: group commit onto a stream, fenced publishes,
// leader reads, and request–reply.
package bus

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bus is a connection and its JetStream context.
type Bus struct {
	Conn *nats.Conn
	JS   jetstream.JetStream
	// Gate, where it is set, is asked before a committer or PublishFenced stores
	// anything, and says why nothing can be stored now: an ErrNotStored.
	Gate func() error
}

// New makes a bus of a connection, which stays its caller's to close.
func New(conn *nats.Conn) (*Bus, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return &Bus{Conn: conn, JS: js}, nil
}

func (b *Bus) mayStore() error {
	if b.Gate == nil {
		return nil
	}
	return b.Gate()
}

// flush waits until the engine has seen everything sent so far.
func (b *Bus) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return b.Conn.FlushWithContext(ctx)
}
