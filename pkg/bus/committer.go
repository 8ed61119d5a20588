package bus

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

const (
	// MaxRequest is the most messages one Commit takes: 1,000 items and a marker.
	MaxRequest = 1001

	defaultThreshold = 16
	// Limit: one commit has at most 1,000 messages, or one request if that has more.
	// Beyond it: the rest waits for the next commit.
	// Used up by: an account that sends many. Hurts: others wait for one commit, but
	// not for all that this account has waiting. Test: TestCommit_Bounds.
	defaultMaxBatch   = 1000
	defaultMaxWaiting = 64 << 20
	// batchHeaders is room for the headers that a batch adds to a message.
	batchHeaders = 128
	// cleanEvery is the pause before a fence that could not be moved is tried again.
	cleanEvery = time.Second
	// That is a thousand messages of the usual length.
	//
	// Limit: one commit has at most 1 MiB, or one request if that is larger. Beyond
	// it: the rest waits for the next commit.
	// Used up by: an account with large requests. Hurts: others wait for one of
	// these, but not for all of them. Test: TestCommit_Bounds.
	maxBatchBytes = 1 << 20
)

// CommitterOptions tune a Committer. The zero value is right for one disk.
type CommitterOptions struct {
	// Threshold: if at least so many messages wait, they are committed as one
	// atomic batch; 16 if 0. If fewer wait, each request is published on its own,
	// without waiting for the one before. A very large threshold, which suits a
	// cluster, means that this is always so.
	Threshold int
	// MaxBatch is the most messages committed together, 1,000 if 0.
	MaxBatch int
	// MaxWaiting bounds the bytes that wait, 64 MiB if 0. Beyond it, requests fail
	// with ErrBusy. With Owner, those of the owner with the most come first.
	MaxWaiting int64
	// Owner gives the owner of a request by the subject of its last message. Owners
	// take turns, and none has more of MaxWaiting than it leaves to others. Nil: all
	// requests have the same owner, who may use all of it.
	Owner func(subject string) string
	// Observe is called after each commit with the number of messages stored, and
	// how long that took. It runs on the committer's goroutine.
	Observe func(messages int, took time.Duration)
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Fence is the fence of messages with an Expected, of which each Commit has at
	// most one. No part of such a Commit is stored late or twice. Nil: there are none.
	Fence *Fence
}

// Stored says where a request's messages are in the stream: at Count sequences
// from First on.
type Stored struct {
	First uint64
	Count int
}

// Committer is group commit onto one stream: requests that come while a commit is
// under way are committed together by the next one. So a busy stream needs one
// sync of the disk for many requests, and a quiet one does not wait to collect
// any.
type Committer struct {
	bus    *Bus
	stream string
	o      CommitterOptions

	mu      sync.Mutex
	queue   queue
	stopped bool
	wake    chan struct{}

	group groupCommit // Run's own
}

// request is one Commit.
type request struct {
	msgs      []*nats.Msg
	owner     string
	bytes     int
	taken     bool // from the queue: its commit is under way
	withdrawn bool // by its caller, before it was taken
	done      chan outcome

	fenced  *nats.Msg // the message that expects something of the fence
	expects uint64
}

type outcome struct {
	stored Stored
	err    error
}

// NewCommitter makes a committer onto a stream that allows atomic batches. It
// works while Run runs.
func NewCommitter(b *Bus, stream string, o CommitterOptions) *Committer {
	if o.Threshold <= 0 {
		o.Threshold = defaultThreshold
	}
	if o.MaxBatch <= 0 {
		o.MaxBatch = defaultMaxBatch
	}
	if o.MaxWaiting <= 0 {
		o.MaxWaiting = defaultMaxWaiting
	}
	if o.Observe == nil {
		o.Observe = func(int, time.Duration) {}
	}
	if o.Owner == nil {
		o.Owner = func(string) string { return "" }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Committer{bus: b, stream: stream, o: o, wake: make(chan struct{}, 1)}
	c.group = groupCommit{
		bus:    b,
		stream: stream,
		now:    o.Now,
		fence:  o.Fence,
		// Without the part that counts up: each stored message of a batch carries its id.
		batchPrefix: nuid.Next()[:12],
		answers:     make(chan *nats.Msg, 4*MaxRequest),
		sent:        make(map[string]*submission),
	}
	return c
}

// Commit stores all of msgs or none, at consecutive sequences, and returns when
// they are stored, as durably as the engine's setting says. It takes at most
// MaxRequest messages, which are the committer's until it returns.
//
// Every error is ErrNotStored (as are ErrDuplicate, ErrFull, ErrBusy, ErrStopped
// and *WrongLast) or ErrUnknownOutcome. If ctx ends before the messages were taken
// from the queue, the error is ErrNotStored and that of ctx. Afterwards ctx no
// longer matters: Commit waits for the outcome, which takes at most about 20 s;
// see While for waiting less.
//
// A commit with an unknown outcome is tried again. If its messages have a
// Nats-Msg-Id, the stored ones are found, so they are stored once. Without one,
// all of them may be stored twice.
func (c *Committer) Commit(ctx context.Context, msgs []*nats.Msg) (Stored, error) {
	if len(msgs) == 0 || len(msgs) > MaxRequest {
		return Stored{}, fmt.Errorf("commit %d messages at once: %w", len(msgs), ErrNotStored)
	}
	if err := ctx.Err(); err != nil {
		return Stored{}, fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	if err := c.bus.mayStore(); err != nil {
		return Stored{}, err
	}
	r := &request{msgs: msgs, owner: c.o.Owner(msgs[len(msgs)-1].Subject), done: make(chan outcome, 1)}
	largest := c.bus.Conn.MaxPayload() - batchHeaders
	for _, m := range msgs {
		if size := m.Size(); int64(size) <= largest {
			r.bytes += size
			continue
		}
		return Stored{}, fmt.Errorf("%w: a message is larger than %d bytes", ErrNotStored, largest)
	}
	if c.o.Fence != nil {
		r.fenced, r.expects = expecting(msgs)
	}
	if err := c.put(r); err != nil {
		return Stored{}, err
	}
	select {
	case o := <-r.done:
		return o.stored, o.err
	case <-ctx.Done():
	}
	if c.withdraw(r) {
		return Stored{}, fmt.Errorf("%w: %w", ErrNotStored, ctx.Err())
	}
	var nobodyWaits <-chan struct{}
	if waiting, ok := ctx.Value(waitingKey{}).(context.Context); ok {
		nobodyWaits = waiting.Done()
	}
	select {
	case o := <-r.done:
		return o.stored, o.err
	case <-nobodyWaits:
		return Stored{}, fmt.Errorf("nobody waits for it: %w", ErrUnknownOutcome)
	}
}

type waitingKey struct{}

// While gives a context like waiting, from which others with a deadline may be derived. A Commit under one of them waits
// for its outcome until waiting ends, and then fails with ErrUnknownOutcome.
func While(waiting context.Context) context.Context {
	return context.WithValue(waiting, waitingKey{}, waiting)
}

// Run commits the requests of Commit until ctx is done. Then it waits for the
// outcome of the commit under way, without retries, and fails the requests that
// still wait with ErrStopped. A committer runs once.
func (c *Committer) Run(ctx context.Context) error {
	defer c.stop()
	if err := c.group.open(); err != nil {
		return fmt.Errorf("commit to %s: %w", c.stream, err)
	}
	defer c.group.close()
	var taken []*request
	for {
		var unclean <-chan time.Time
		if c.group.dirty {
			unclean = time.After(cleanEvery)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-unclean:
		case <-c.wake:
		}
		c.group.clean(ctx)
		for ctx.Err() == nil {
			// The callers that the last commit has answered may want to join this one.
			runtime.Gosched()
			if taken = c.take(taken[:0]); len(taken) == 0 {
				break
			}
			start := c.o.Now()
			if stored := c.group.commit(ctx, taken, c.o.Threshold); stored > 0 {
				c.o.Observe(stored, c.o.Now().Sub(start))
			}
			clear(taken)
		}
	}
}

func (c *Committer) put(r *request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return ErrStopped
	}
	if !c.queue.put(r, c.o.MaxWaiting) {
		return ErrBusy
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// take moves the requests of the next commit from the queue to into.
func (c *Committer) take(into []*request) []*request {
	c.mu.Lock()
	defer c.mu.Unlock()
	messages, bytes := 0, 0
	for r := c.queue.next(); r != nil; r = c.queue.next() {
		fits := messages+len(r.msgs) <= c.o.MaxBatch && bytes+r.bytes <= maxBatchBytes
		if len(into) > 0 && !fits {
			break
		}
		c.queue.pop()
		r.taken = true
		messages += len(r.msgs)
		bytes += r.bytes
		into = append(into, r)
	}
	return into
}

// withdraw takes a request back if it still waits.
func (c *Committer) withdraw(r *request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.taken {
		return false
	}
	c.queue.withdraw(r)
	return true
}

// stop fails all requests that still wait.
func (c *Committer) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	for r := c.queue.next(); r != nil; r = c.queue.next() {
		c.queue.pop()
		r.taken = true
		r.done <- outcome{err: ErrStopped}
	}
}

// permanent reports whether a failed send would fail again however often it is
// repeated.
func permanent(err error) bool {
	return errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject)
}
