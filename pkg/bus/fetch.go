package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	nextMessages = jetstream.DefaultAPIPrefix + "CONSUMER.MSG.NEXT."

	// The engine's answers to a fetch (ADR-13 of the NATS project).
	statusNoMessages = "404"
	statusTimeout    = "408"
	statusGone       = "503"
	consumerDeleted  = "Consumer Deleted"
)

// Fetched is a message from a pull consumer. Until it is acked, it comes again
// after the consumer's ack wait.
type Fetched struct {
	Seq  uint64
	Data []byte

	reply string
	conn  *nats.Conn
}

// Ack tells the consumer to forget the message. It does not wait for an answer: if
// it is lost, the message comes again.
func (f *Fetched) Ack() { _ = f.conn.Publish(f.reply, []byte("+ACK")) }

// Nak gives the message back, so that it can be fetched again at once.
func (f *Fetched) Nak() { _ = f.conn.Publish(f.reply, []byte("-NAK")) }

// Fetch takes up to n messages that a pull consumer has now, in the order of the
// stream. A busy engine may give fewer. If there are none, Fetch waits for the
// first one for as long as wait says. With a wait of 0 it may miss a message that
// was just stored: the engine's count of what is pending lags behind. The error
// is ErrNoConsumer where there is no such consumer, and ErrNoAnswer where it does
// not answer. With any error there are no messages: those on their way come again
// after the consumer's ack wait.
func (b *Bus) Fetch(ctx context.Context, stream, consumer string, n int, wait time.Duration) ([]*Fetched, error) {
	within, cancel := context.WithTimeout(ctx, b.patience().fetch+wait)
	defer cancel()
	inbox := b.Conn.NewInbox()
	arrived := make(chan *nats.Msg, n+1)
	sub, err := b.Conn.ChanSubscribe(inbox, arrived)
	if err != nil {
		return nil, fmt.Errorf("fetch: subscribe: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	ask := func(n int) error {
		asked := fmt.Appendf(nil, `{"batch":%d,"no_wait":true,"expires":%d}`, n, wait)
		if err := b.Conn.PublishRequest(nextMessages+stream+"."+consumer, inbox, asked); err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
		return nil
	}
	if err := ask(n); err != nil {
		return nil, err
	}
	got := make([]*Fetched, 0, n)
	for again := false; len(got) < n; {
		select {
		case m := <-arrived:
			if m.Reply == "" {
				// The wait is meant for the first message, but at its end the engine also
				// stops giving the others: ask for these once more.
				if m.Header.Get("Status") == statusTimeout && len(got) > 0 && !again {
					again = true
					if err := ask(n - len(got)); err != nil {
						return nil, err
					}
					continue
				}
				return got, ended(m.Header.Get("Status"), m.Header.Get("Description"))
			}
			meta, err := m.Metadata()
			if err != nil {
				return nil, fmt.Errorf("fetch: read metadata: %w", err)
			}
			got = append(got, &Fetched{Seq: meta.Sequence.Stream, Data: m.Data, reply: m.Reply, conn: b.Conn})
		case <-within.Done():
			if ctx.Err() == nil {
				return nil, fmt.Errorf("fetch: %w", ErrNoAnswer)
			}
			return nil, fmt.Errorf("fetch: %w", ctx.Err())
		}
	}
	return got, nil
}

// ended gives the error that the status at the end of a fetch means.
func ended(status, description string) error {
	switch {
	case status == statusNoMessages || status == statusTimeout:
		return nil
	case status == statusGone || description == consumerDeleted:
		return ErrNoConsumer
	}
	return errors.New("fetch: " + status + " " + description)
}
