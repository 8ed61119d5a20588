// Package bus is how everything here uses NATS: group commit onto a stream,
// fenced publishes, reads from the leader, and request–reply.
//
// A publish over NATS has three outcomes: stored, not stored, and unknown. An
// answer may be lost, and what was sent may arrive long after anybody waits for
// it. Most of this package is about that third outcome, see Committer, Fence and
// Decisions.
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
	// MayStore is called before a Committer or PublishFenced stores anything. Its
	// error, an ErrNotStored, says why nothing can be stored now. It may be nil.
	MayStore func() error
}

// New makes a bus of a connection. The caller closes the connection.
func New(conn *nats.Conn) (*Bus, error) {
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return &Bus{Conn: conn, JS: js}, nil
}

// patience is how long one try may take before the next one, and how long a
// question is asked in all (asked).
type patience struct {
	commit, fenced, fetch, ask, asked time.Duration
}

// An engine in this process that does not answer is busy: to ask again would not
// help. Over a network the node may be gone or stand still, and another one may
// have taken over: trying again soon finds it. A leader that has an earlier try
// under way says so, and the tries become less frequent then.
var (
	// Limit: an engine in this process has 15 s to answer a question, such as one
	// for the marker of a key. Beyond it: 503, such as idempotency_unavailable.
	// Used up by: a machine that is very busy. Hurts: all accounts: their requests
	// wait so long. Test: TestInside_LateAnswer.
	patienceInside = patience{commit: attemptTimeout, fenced: fencedTimeout, fetch: callTimeout, ask: 15 * time.Second, asked: 15 * time.Second}
	// Limit: over a network a commit is answered within 1 s, a decision within 2 s,
	// a question within 1 s, and 3 s in all. Beyond it: it is sent again.
	// Used up by: a network that is slow. Hurts: nobody: nothing is stored twice.
	// Test: TestAcross_ToldAgain.
	patienceAcross = patience{commit: time.Second, fenced: 2 * time.Second, fetch: time.Second, ask: time.Second, asked: 3 * time.Second}
)

// Inside reports whether the engine is in this process.
func (b *Bus) Inside() bool { return b.Conn.Opts.InProcessServer != nil }

func (b *Bus) patience() patience {
	if b.Inside() {
		return patienceInside
	}
	return patienceAcross
}

// Away reports whether an error means that the engine could not be reached or
// had no leader. What failed with it was not done, or its outcome is unknown.
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
