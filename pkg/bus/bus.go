// Package bus speaks to NATS: group commit onto a stream, fenced publishes,
// leader reads, and request–reply.
package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bus is a connection and its JetStream context.
type Bus struct {
	Conn *nats.Conn
	JS   jetstream.JetStream
	// MayStore, where it is set, is asked before a committer or PublishFenced stores
	// anything, and says why nothing can be stored now: an ErrNotStored.
	MayStore func() error
}

// New makes a bus of a connection, which stays its caller's to close.
func New(conn *nats.Conn) (*Bus, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return &Bus{Conn: conn, JS: js}, nil
}

// patience is how long one try may take until another one is made, and how long
// a question is asked in all.
type patience struct {
	commit, fenced, fetch, ask, asked time.Duration
}

// In this process an engine that does not answer is busy. Over a network the
// node that was asked may stand still or be gone without a word, and another
// one has taken over meanwhile: what is tried again soon finds it. A leader that
// has an earlier try says so, and is told less often from then on.
var (
	// Used up by a machine that is very busy: who asks waits so long, and is
	// refused then.
	patienceInside = patience{commit: attemptTimeout, fenced: fencedTimeout, fetch: callTimeout, ask: 15 * time.Second, asked: 15 * time.Second}
	// Used up by a network that is slow: what is told is told again, and
	// hurts nobody.
	patienceAcross = patience{commit: time.Second, fenced: 2 * time.Second, fetch: time.Second, ask: time.Second, asked: 3 * time.Second}
)

// Inside says whether the engine is in this process.
func (b *Bus) Inside() bool { return b.Conn.Opts.InProcessServer != nil }

func (b *Bus) patience() patience {
	if b.Inside() {
		return patienceInside
	}
	return patienceAcross
}

// Away says whether an error means that the engine could not be reached or had
// no leader: what failed by it was not done, or nobody knows.
func Away(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return ack{Error: api}.passing() || api.ErrorCode == codeNoQuorum || api.Code == 503
	}
	for _, one := range []error{
		nats.ErrNoResponders, nats.ErrTimeout, nats.ErrReconnectBufExceeded, nats.ErrConnectionClosed, nats.ErrDisconnected,
		nats.ErrConnectionReconnecting, nats.ErrNoServers, ErrNoConsumer, ErrNoAnswer,
	} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

const codeNoQuorum = 10074

func (b *Bus) mayStore() error {
	if b.MayStore == nil {
		return nil
	}
	return b.MayStore()
}

// flush waits until the engine has seen everything sent so far.
func (b *Bus) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return b.Conn.FlushWithContext(ctx)
}
