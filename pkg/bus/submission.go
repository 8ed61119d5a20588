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

	// maxSearch bounds how many messages of a subject a search reads: a commit stores
	// far fewer.
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

// submission is stored whole or not at all: it is one request, or several that
// share an atomic batch.
type submission struct {
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
	outrun    int      // attempts that were rejected because another message of the fence was under way
}

func newSubmission(reqs []*request) *submission {
	s := &submission{reqs: reqs}
	for _, r := range reqs {
		s.messages += len(r.msgs)
	}
	return s
}

// finish answers all requests of the submission. first is the sequence of its first
// message.
func (s *submission) finish(first uint64, err error) {
	for _, r := range s.reqs {
		o := outcome{err: err}
		if err == nil {
			o.stored = Stored{First: first, Count: len(r.msgs)}
			first += uint64(len(r.msgs))
		}
		r.done <- o
	}
}

// send publishes the submission once. Only its last message asks for an answer.
func (s *submission) send(g *groupCommit) error {
	if s.messages == 1 {
		m := s.reqs[0].msgs[0]
		g.wire = nats.Msg{Subject: m.Subject, Reply: g.inbox + s.token, Header: m.Header, Data: m.Data}
		return g.bus.Conn.PublishMsg(&g.wire)
	}
	id := g.batchPrefix + s.token
	s.batches = append(s.batches, id)
	ids, sequences := []string{id}, batchSequences()
	n := 0
	for _, request := range s.reqs {
		for _, m := range request.msgs {
			last := n == s.messages-1
			err := s.sendInBatch(g, m, ids, sequences[n], last)
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

// errCutShort says that the last message of a batch was not sent: the engine drops
// the batch.
var errCutShort = errors.New("batch cut short")

// sendInBatch sends one message of a batch. It removes the headers that it adds, as
// they belong to this attempt only.
func (s *submission) sendInBatch(g *groupCommit, m *nats.Msg, id, sequence []string, last bool) error {
	h := m.Header
	if h == nil {
		h = make(nats.Header, 3)
	}
	h[batchIDHeader], h[batchSequenceHeader] = id, sequence
	g.wire = nats.Msg{Subject: m.Subject, Header: h, Data: m.Data}
	if last {
		h[batchCommitHeader] = batchCommit
		g.wire.Reply = g.inbox + s.token
	}
	err := g.bus.Conn.PublishMsg(&g.wire)
	delete(h, batchIDHeader)
	delete(h, batchSequenceHeader)
	delete(h, batchCommitHeader)
	return err
}

// errNoID says that a submission cannot be found again.
var errNoID = errors.New("no message has an id")

// find looks in the stream for the submission, and returns its first sequence, 0 if
// no attempt has stored it. Call it only when that can no longer change: the fence
// has moved, or the engine has rejected a later attempt and so is done with all
// earlier ones. The search begins above floor, a sequence that the stream had before
// the first attempt.
func (s *submission) find(ctx context.Context, b *Bus, stream string, floor uint64) (uint64, error) {
	m, index := s.firstWithID()
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
			if !s.stored(m, found) {
				return 0, nil // another process has used the same id
			}
			return found.Sequence - uint64(index), nil
		}
		seq = found.Sequence
	}
	return 0, errors.New("too many messages to look through")
}

// stored reports whether found, which has the id of m, was stored by an attempt of
// ours.
func (s *submission) stored(m *nats.Msg, found *jetstream.RawStreamMsg) bool {
	if s.messages > 1 {
		return slices.Contains(s.batches, found.Header.Get(batchIDHeader))
	}
	return string(found.Data) == string(m.Data)
}

// firstWithID returns the first message with an id, and its index in the
// submission.
func (s *submission) firstWithID() (*nats.Msg, int) {
	n := 0
	for _, r := range s.reqs {
		for _, m := range r.msgs {
			if m.Header.Get(jetstream.MsgIDHeader) != "" {
				return m, n
			}
			n++
		}
	}
	return nil, 0
}
