package projection

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

const (
	// setupTimeout bounds the steps that begin a session. In a large stream the engine
	// takes a while to count what a new consumer has before it.
	setupTimeout = 30 * time.Second
	// Over a network a consumer has to be made within setupFirst, or another one is
	// tried: the node of the first may stand still. After setupSoon such tries the
	// network counts as slow, and each next try has twice as long.
	setupFirst = time.Second
	setupSoon  = 6
	// checkExtra is the additional time for checking the cursor.
	checkExtra = 2 * time.Second
	// A session that has failed is begun again after minPause, then after twice that,
	// up to maxReadPause.
	minPause     = 50 * time.Millisecond
	maxReadPause = time.Second
	// logAgain is the time after which the same failure is logged again.
	logAgain = 30 * time.Second
	// Limit: events that are read and not folded yet take at most 16 MiB of each
	// stream. Beyond it: the rest stays in the stream until they are folded.
	// Used up by: all accounts together. Hurts: nobody: the fold is behind anyway. Test:
	// TestLargeEvents.
	backlogBytes = 16 << 20
)

// reader reads the events of one stream into a queue: in order, and each once,
// whatever happens to the connection or the consumer.
type reader struct {
	bus    *bus.Bus
	log    *zap.Logger
	source Source
	queue  *queue
	batch  int    // events asked for at once
	until  uint64 // the last sequence to read; 0: read for ever
	from   uint64 // the sequence before the first one to read
	last   cursor // of the last event queued
	came   uint64 // events queued

	sessions int // begun so far
	late     int // sessions in a row that could not begin in time

	// behind is how many events are left of those that the stream had when reading
	// began.
	behind   uint64
	caughtUp bool // none is left, and that is queued

	backlog struct{ events, bytes atomic.Int64 } // queued and not folded yet
	room    chan struct{}                        // gets a token when the backlog has shrunk
	current atomic.Pointer[session]
}

func newReader(b *bus.Bus, log *zap.Logger, s Source, q *queue, batch int, from cursor, until uint64) *reader {
	return &reader{
		bus: b, log: log.With(zap.String("stream", s.Stream)), source: s, queue: q,
		batch: batch, until: until, from: from.seq, last: from, room: make(chan struct{}, 1),
	}
}

var errRefused = errors.New("consumer refused")

// errCut ends a session because its connection is lost.
var errCut = errors.New("connection was cut")

// run reads until ctx is done, the event at until is queued (nil, or errUnreadable if
// some could not be read), or the stream is not the one that was folded (errLost).
func (r *reader) run(ctx context.Context) error {
	status := r.bus.Conn.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer r.bus.Conn.RemoveStatusListener(status)
	pause, logged, at := minPause, "", time.Time{}
	for {
		before, sessions := r.last.seq, r.sessions
		err := r.readOnce(ctx, status)
		switch {
		case err == nil || ctx.Err() != nil || errors.Is(err, errLost) || errors.Is(err, errUnreadable):
			return err
		case r.bus.Conn.IsClosed():
			return fmt.Errorf("read %s: %w", r.source.Stream, nats.ErrConnectionClosed)
		case errors.Is(err, errRefused):
			return fmt.Errorf("read %s: %w", r.source.Stream, err)
		}
		if r.last.seq > before {
			pause = minPause
		}
		if text := err.Error(); text != logged || r.sessions > sessions || time.Since(at) > logAgain {
			r.log.Warn("reading stopped, trying again", zap.Uint64("seq", r.last.seq), zap.Error(err))
			logged, at = text, time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-status:
		case <-time.After(pause):
		}
		pause = min(2*pause, maxReadPause)
	}
}

// readOnce reads with one connection and one consumer, until one of them fails.
func (r *reader) readOnce(ctx context.Context, status <-chan nats.Status) error {
	for len(status) > 0 {
		<-status
	}
	if !r.bus.Conn.IsConnected() {
		return errCut
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-status: // otherwise a request in flight would wait for its timeout
			cancel(errCut)
		case <-ctx.Done():
		}
	}()
	defer func() {
		cancel(nil)
		<-watched
	}()
	s, err := r.begin(ctx)
	if err == nil {
		err = s.run(ctx)
		s.end()
	} else if errors.Is(err, context.DeadlineExceeded) {
		r.late++
	}
	if err != nil && errors.Is(context.Cause(ctx), errCut) {
		err = errCut
	}
	return err
}

// begin makes a consumer that starts after the last event, and only then checks that
// event against the stream. In this order nothing is missed: if the stream is recreated
// after the check, the consumer is gone with it.
func (r *reader) begin(ctx context.Context) (*session, error) {
	inbox := r.bus.Conn.NewInbox()
	s := &session{
		reader: r, inbox: inbox, pace: paceOf(r.bus),
		messages: make(chan *nats.Msg, 2*r.batch+64),
	}
	var err error
	s.sub, err = r.bus.Conn.ChanSubscribe(inbox+".*", s.messages)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	making, cancel := context.WithTimeout(ctx, r.setup())
	defer cancel()
	s.consumer, err = r.makeConsumer(making, r.last.seq+1)
	if err != nil {
		s.end()
		var api *jetstream.APIError
		if r.sessions == 0 && errors.As(err, &api) && api.Code == 400 {
			// To the server the request itself is wrong: it would never succeed.
			return nil, fmt.Errorf("%w: %w", errRefused, err)
		}
		return nil, fmt.Errorf("make consumer: %w", err)
	}
	r.sessions++
	checking, cancel := context.WithTimeout(ctx, r.setup()+checkExtra)
	defer cancel()
	created, err := checkCursor(checking, r.bus, r.source.Stream, r.last)
	if err != nil {
		s.end()
		return nil, err
	}
	r.last.created = created
	pending := s.consumer.CachedInfo().NumPending
	if !r.caughtUp && (r.behind == 0 || pending < r.behind) {
		r.behind = pending
	}
	if pending == 0 {
		r.catchUp()
		s.done = r.until > 0
	}
	r.current.Store(s)
	r.late = 0
	return s, nil
}

// setup is how long one step at the beginning of a session may take.
func (r *reader) setup() time.Duration {
	if r.bus.Inside() {
		return setupTimeout
	}
	step := setupFirst
	for range r.late - setupSoon {
		step = min(2*step, setupTimeout)
	}
	return step
}

// makeConsumer makes a consumer that begins at a sequence. If the answer does not come
// in time, the consumer that may have been made is removed.
func (r *reader) makeConsumer(ctx context.Context, from uint64) (jetstream.Consumer, error) {
	name := nuid.Next()
	c, err := r.bus.JS.CreateConsumer(ctx, r.source.Stream, jetstream.ConsumerConfig{
		Name:              name,
		Description:       "projection",
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       from,
		FilterSubjects:    r.source.Subjects,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: 5 * time.Minute,
	})
	if errors.Is(err, context.DeadlineExceeded) {
		r.remove(name)
	}
	return c, err
}

// count asks how many events the stream has from a sequence on.
func (r *reader) count(ctx context.Context, from uint64) (uint64, error) {
	c, err := r.makeConsumer(ctx, from)
	if err != nil {
		return 0, fmt.Errorf("count events of %s: %w", r.source.Stream, err)
	}
	r.give(c)
	return c.CachedInfo().NumPending, nil
}

// give removes a consumer.
func (r *reader) give(c jetstream.Consumer) { r.remove(c.CachedInfo().Name) }

// remove removes a consumer. It does not wait for the answer: if it fails, the server
// removes the consumer when nobody pulls.
func (r *reader) remove(name string) {
	_ = r.bus.Conn.Publish(jetstream.DefaultAPIPrefix+"CONSUMER.DELETE."+r.source.Stream+"."+name, nil)
}

// catchUp queues caughtUp: all that the stream had when reading began is queued.
func (r *reader) catchUp() {
	if !r.caughtUp {
		r.caughtUp = true
		r.enqueue([]item{{reader: r, caughtUp: true}})
	}
}

func (r *reader) enqueue(items []item) {
	bytes := 0
	for i := range items {
		bytes += items[i].size
	}
	r.backlog.events.Add(int64(len(items)))
	r.backlog.bytes.Add(int64(bytes))
	r.queue.put(items)
}

// hasRoom reports whether more events may be asked for.
func (r *reader) hasRoom() bool {
	return r.backlog.events.Load() < int64(2*r.batch) && r.backlog.bytes.Load() < backlogBytes
}

// folded takes events off the backlog.
func (r *reader) folded(events, bytes int) {
	r.backlog.events.Add(-int64(events))
	r.backlog.bytes.Add(-int64(bytes))
	select {
	case r.room <- struct{}{}:
	default:
	}
}

// lag counts the events of the stream that are not folded yet.
func (r *reader) lag(ctx context.Context) (uint64, error) {
	s := r.current.Load()
	if s == nil {
		return 0, fmt.Errorf("read lag of %s: not connected yet", r.source.Stream)
	}
	info, err := s.consumer.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("read lag of %s: %w", r.source.Stream, err)
	}
	lag := info.NumPending + uint64(max(0, r.backlog.events.Load()))
	if received := s.received.Load(); info.Delivered.Consumer > received {
		lag += info.Delivered.Consumer - received // on their way
	}
	return lag, nil
}
