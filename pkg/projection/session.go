package projection

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// Limit: one read brings events of at most 8 MiB. Beyond it: the rest comes with the
// next.
// Used up by: large events. Hurts: nobody. Test: TestLargeEvents.
const pullBytes = 8 << 20

// pace is how often something comes from a server that has no events. It ends each
// pull after a time. Over a network it also sends a heartbeat while the pull is open,
// because a node, or the network, may be gone without closing the connection.
type pace struct{ pull, heartbeat time.Duration }

func paceOf(b *bus.Bus) pace {
	if b.Inside() {
		return pace{pull: 2 * time.Minute}
	}
	return pace{pull: 30 * time.Second, heartbeat: time.Second}
}

// silence is how long nothing may come while a pull is open, until the session counts
// as dead.
func (p pace) silence() time.Duration {
	if p.heartbeat == 0 {
		return p.pull + 10*time.Second
	}
	return 2 * p.heartbeat
}

// answer is how long the server has to answer how far a consumer is.
func (p pace) answer() time.Duration {
	if p.heartbeat == 0 {
		return setupTimeout
	}
	return p.silence()
}

// session reads one stream with one consumer and one connection. At most one pull is
// open at a time: its events go into the queue while those of the one before are
// folded.
type session struct {
	reader   *reader
	consumer jetstream.Consumer
	sub      *nats.Subscription
	inbox    string
	messages chan *nats.Msg
	pace     pace

	pulls   int // made so far; the reply subject of a pull ends with its number
	reply   string
	open    bool
	left    int  // events the open pull may still bring
	bytes   int  // and bytes
	came    int  // events that it has brought
	heard   bool // something has come since the last look
	suspect bool // a pull ended although events wait
	done    bool // the last event to read is queued
	items   []item

	received atomic.Uint64 // the consumer's number of the last event
}

var errSilent = errors.New("server is silent")

func (s *session) run(ctx context.Context) error {
	r := s.reader
	watch, silent := time.NewTicker(s.pace.silence()/2), 0
	defer watch.Stop()
	for !s.done {
		if !s.open && r.hasRoom() {
			if err := s.pull(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.room:
		case <-watch.C:
			if silent++; !s.open || s.heard {
				silent = 0
			}
			if silent == 2 {
				return errSilent
			}
			s.heard = false
		case m := <-s.messages:
			s.heard = true
			if err := s.receive(ctx, m); err != nil {
				return err
			}
		}
	}
	return s.complete(ctx)
}

// receive takes a message and those that have come with it.
func (s *session) receive(ctx context.Context, m *nats.Msg) error {
	defer s.flush()
	for {
		var err error
		if m.Reply != "" {
			err = s.takeEvent(m)
		} else {
			s.flush()
			err = s.takeStatus(ctx, m)
		}
		if err != nil || s.done || !s.open || len(s.messages) == 0 {
			return err
		}
		m = <-s.messages
	}
}

// flush queues the events that were taken.
func (s *session) flush() {
	s.reader.enqueue(s.items)
	clear(s.items)
	s.items = s.items[:0]
}

// pull asks for the next events.
func (s *session) pull() error {
	s.pulls++
	s.reply = s.inbox + "." + strconv.Itoa(s.pulls)
	s.open, s.heard = true, true
	s.left, s.came, s.bytes = s.reader.batch, 0, pullBytes
	request := fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"expires":%d,"idle_heartbeat":%d}`,
		s.left, s.bytes, s.pace.pull, s.pace.heartbeat)
	info := s.consumer.CachedInfo()
	subject := jetstream.DefaultAPIPrefix + "CONSUMER.MSG.NEXT." + info.Stream + "." + info.Name
	if err := s.reader.bus.Conn.PublishRequest(subject, s.reply, request); err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	return nil
}

// takeEvent takes the next event.
func (s *session) takeEvent(m *nats.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("read metadata: %w", err)
	}
	r := s.reader
	seq := meta.Sequence.Stream
	if meta.Sequence.Consumer != s.received.Load()+1 || seq <= r.last.seq {
		return fmt.Errorf("event %d came as number %d after %d", seq, meta.Sequence.Consumer, s.received.Load())
	}
	s.received.Store(meta.Sequence.Consumer)
	s.suspect = false
	s.came++
	s.left--
	s.bytes -= m.Size()
	if s.left == 0 || s.bytes == 0 {
		s.open = false
	}
	if r.until > 0 {
		s.done = seq >= r.until || meta.NumPending == 0
		if seq > r.until {
			return nil
		}
	}
	r.last.seq, r.last.time = seq, meta.Timestamp.UnixNano()
	r.came++
	one := item{
		reader: r,
		at:     r.last,
		size:   m.Size(),
		Event: Event{
			Stream:  r.source.Stream,
			Subject: m.Subject,
			Kind:    m.Header.Get(event.KindHeader),
			Seq:     seq,
			Time:    meta.Timestamp.UTC(),
			Header:  m.Header,
			Data:    m.Data,
		},
	}
	if !r.caughtUp {
		r.behind = min(r.behind-1, meta.NumPending)
		r.caughtUp = r.behind == 0
		one.caughtUp = r.caughtUp
	}
	s.items = append(s.items, one)
	return nil
}

// takeStatus reads a status of the server about a pull.
func (s *session) takeStatus(ctx context.Context, m *nats.Msg) error {
	if m.Subject != s.reply {
		return nil // of a pull that has ended
	}
	code, text := m.Header.Get("Status"), m.Header.Get("Description")
	switch {
	case code == "100":
		delivered, err := strconv.ParseUint(m.Header.Get("Nats-Last-Consumer"), 10, 64)
		if err == nil && delivered > s.received.Load() {
			return fmt.Errorf("%d events were delivered and %d came", delivered, s.received.Load())
		}
		return nil
	case code == "404" || code == "408":
		s.open = false
		return s.look(ctx)
	case code == "409" && (text == "Batch Completed" || text == "Message Size Exceeds MaxBytes" && s.came > 0):
		s.open = false
		return nil
	}
	return fmt.Errorf("pull ended: %s %s", code, text)
}

// look asks whether events wait although a pull has ended without any. If so twice in a
// row, the consumer is stuck: the session fails, and the next one makes another.
func (s *session) look(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, s.pace.answer())
	info, err := s.consumer.Info(asking)
	cancel()
	if err != nil {
		return fmt.Errorf("look at consumer: %w", err)
	}
	if info.NumPending == 0 {
		if r := s.reader; !r.caughtUp && r.behind > 0 {
			if err := s.complete(ctx); errors.Is(err, errUnreadable) {
				r.log.Error("what is folded lacks events", zap.Error(err))
			}
		}
		s.reader.catchUp()
		s.suspect = false
		s.done = s.reader.until > 0
		return nil
	}
	if s.suspect {
		return fmt.Errorf("%d events wait and none is delivered", info.NumPending)
	}
	s.suspect = true
	return nil
}

// errUnreadable says that a stream does not give all events that it has.
var errUnreadable = errors.New("events are damaged on the disk")

// complete checks that all events have come that the stream has in the range to read:
// the server silently skips events whose checksum is wrong. It fails with
// errUnreadable if some have not.
func (s *session) complete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	r := s.reader
	// Events that are stored between the two make only the second count higher, so they
	// cannot be taken for missing ones.
	all, err := r.count(ctx, r.from+1)
	if err != nil {
		return err
	}
	rest, err := r.count(ctx, r.last.seq+1)
	if err != nil {
		return err
	}
	if all > rest+r.came {
		return fmt.Errorf("%w: %d of %s", errUnreadable, all-rest-r.came, r.source.Stream)
	}
	return nil
}

// end ends the session, and removes its consumer.
func (s *session) end() {
	_ = s.sub.Unsubscribe() // fails only when the connection is gone
	if s.consumer != nil {
		s.reader.give(s.consumer)
	}
}
