package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	batchIDHeader       = "Nats-Batch-Id"
	batchSequenceHeader = "Nats-Batch-Sequence"
	batchCommitHeader   = "Nats-Batch-Commit"

	// maxSearch bounds how many messages of a subject a search reads.
	maxSearch = 10_000
)

// batchSequences holds the header values of a batch's messages, by index.
var batchSequences = sync.OnceValue(func() [][]string {
	values := make([][]string, MaxRequest)
	for i := range values {
		values[i] = []string{strconv.Itoa(i + 1)}
	}
	return values
})

var batchCommit = []string{"1"}

// unit is what is stored whole or not at all: a request, or several that share
// an atomic batch.
type unit struct {
	reqs     []*request
	messages int

	// Of the attempt under way.
	token   string
	waiting bool
	answer  ack
	err     error // why there is no answer

	batches   []string // ids of all attempts
	uncertain bool     // one of the attempts may have stored it
	expects   uint64   // of the fence, in the attempt under way
	outrun    int      // attempts refused since another message of the fence was under way
}

func newUnit(reqs []*request) *unit {
	u := &unit{reqs: reqs}
	for _, r := range reqs {
		u.messages += len(r.msgs)
	}
	return u
}

// finish answers every request of the unit; first is the sequence of its first
// message.
func (u *unit) finish(first uint64, err error) {
	for _, r := range u.reqs {
		o := outcome{err: err}
		if err == nil {
			o.stored = Stored{First: first, Count: len(r.msgs)}
			first += uint64(len(r.msgs))
		}
		r.done <- o
	}
}

// send publishes the unit once. The last message asks for the answer.
func (u *unit) send(r *round) error {
	if u.messages == 1 {
		m := u.reqs[0].msgs[0]
		r.wire = nats.Msg{Subject: m.Subject, Reply: r.inbox + u.token, Header: m.Header, Data: m.Data}
		return r.bus.Conn.PublishMsg(&r.wire)
	}
	id := r.batchPrefix + u.token
	u.batches = append(u.batches, id)
	ids, sequences := []string{id}, batchSequences()
	n := 0
	for _, request := range u.reqs {
		for _, m := range request.msgs {
			last := n == u.messages-1
			err := u.sendInBatch(r, m, ids, sequences[n], last)
			if err != nil && !last {
				return fmt.Errorf("%w: %w", errCutShort, err)
			}
			if err != nil {
				return err
			}
			n++
		}
	}
	return nil
}

// errCutShort is a batch whose last message was not sent: the engine drops it.
var errCutShort = errors.New("batch cut short")

// sendInBatch leaves the message's header as it was: what it adds belongs to
// this attempt.
func (u *unit) sendInBatch(r *round, m *nats.Msg, id, sequence []string, last bool) error {
	h := m.Header
	if h == nil {
		h = make(nats.Header, 3)
	}
	h[batchIDHeader], h[batchSequenceHeader] = id, sequence
	r.wire = nats.Msg{Subject: m.Subject, Header: h, Data: m.Data}
	if last {
		h[batchCommitHeader] = batchCommit
		r.wire.Reply = r.inbox + u.token
	}
	err := r.bus.Conn.PublishMsg(&r.wire)
	delete(h, batchIDHeader)
	delete(h, batchSequenceHeader)
	delete(h, batchCommitHeader)
	return err
}

// errNoID says that a unit has nothing it could be found by.
var errNoID = errors.New("no message has an id")

// find looks in the stream whether an earlier attempt stored the unit, and
// returns its first sequence, 0 if none did. An engine that refuses a repeat
// has decided all earlier attempts, so the answer is final. It looks above
// floor, a sequence the stream had before the first attempt.
func (u *unit) find(ctx context.Context, b *Bus, stream string, floor uint64) (uint64, error) {
	m, index := u.firstWithID()
	if m == nil {
		return 0, errNoID
	}
	seq := floor
	for range maxSearch {
		found, err := b.fromLeader(ctx, stream, getRequest{Seq: seq + 1, NextBySubject: m.Subject})
		if errors.Is(err, ErrNoMessage) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		if found.Header.Get(jetstream.MsgIDHeader) == m.Header.Get(jetstream.MsgIDHeader) {
			if !u.stored(m, found) {
				return 0, nil // somebody else's message has the id
			}
			return found.Sequence - uint64(index), nil
		}
		seq = found.Sequence
	}
	return 0, errors.New("too many messages to look through")
}

// stored tells whether found, which has m's id, is what an attempt stored.
func (u *unit) stored(m *nats.Msg, found *jetstream.RawStreamMsg) bool {
	if u.messages > 1 {
		return slices.Contains(u.batches, found.Header.Get(batchIDHeader))
	}
	return string(found.Data) == string(m.Data)
}

// firstWithID returns the first message that can be found again, and its place
// in the unit.
func (u *unit) firstWithID() (*nats.Msg, int) {
	n := 0
	for _, r := range u.reqs {
		for _, m := range r.msgs {
			if m.Header.Get(jetstream.MsgIDHeader) != "" {
				return m, n
			}
			n++
		}
	}
	return nil, 0
}
