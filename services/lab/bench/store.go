package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/services/ingress"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// store stores messages as ingress does: the same events, by group commit onto
// the same stream.
type store struct {
	committer *bus.Committer
	accounts  []streams.AccountID
	ids       *streams.IDs
}

// instance tells this process's ids from those of an ingress.
const instance = streams.MaxInstance

func newStore(b *bus.Bus, accounts []streams.AccountID) *store {
	return &store{
		committer: bus.NewCommitter(b, streams.EnqueueStream(0), bus.CommitterOptions{Threshold: ingress.DefaultConfig().BatchThreshold}),
		accounts:  accounts,
		ids:       streams.NewIDs(time.Now, instance, streams.Epoch),
	}
}

// while runs f, and the committer beside it.
func (s *store) while(ctx context.Context, f func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var committer errgroup.Group
	committer.Go(func() error {
		defer stop()
		return s.committer.Run(ctx)
	})
	err := f(ctx)
	stop()
	if failed := committer.Wait(); failed != nil {
		return failed
	}
	return err
}

var lane = streams.Lane{Priority: streams.Normal, Class: streams.Text}

// add stores the messages of one request.
func (s *store) add(ctx context.Context, account streams.AccountID, messages []message) error {
	subject := streams.EnqueueSubject(0, account, lane)
	month := time.Now().UTC().Format("2006-01")
	msgs := make([]*nats.Msg, len(messages))
	for i, m := range messages {
		id := s.ids.Message()
		msg, err := event.Message(subject, event.Enqueued{ID: id, Phone: event.Private(m.Phone), Text: event.Private(m.Message), Month: month})
		if err != nil {
			return err
		}
		msg.Header[jetstream.MsgIDHeader] = []string{account.String() + "/" + id.String()}
		msgs[i] = msg
	}
	_, err := s.committer.Commit(ctx, msgs)
	return err
}

// fillers is how many commits are made ready while one is stored.
const fillers = 4

// fill stores many messages.
func (s *store) fill(ctx context.Context, account, count int) error {
	var (
		left  atomic.Int64
		g     errgroup.Group
		batch = sync.OnceValue(func() []message { return texts(1000) })
	)
	left.Store(int64(count))
	for range fillers {
		g.Go(func() error {
			for {
				n := left.Add(-1000) + 1000
				if n <= 0 {
					return nil
				}
				if err := s.add(ctx, s.accounts[account], batch()[:min(n, 1000)]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}
