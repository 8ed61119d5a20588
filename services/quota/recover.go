package quota

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// askTimeout is how long an ingress has to list its grants.
	askTimeout = 2 * time.Second
	// foldTimeout is how long the fold may take to reach what is stored.
	foldTimeout = 5 * time.Second
	// codeStoreFailed is the engine's error code for a stream that is full.
	codeStoreFailed = 10077
)

// recover learns which grants of earlier leaders are still open, and then opens the
// shards: from then on this leader grants.
//
// Every ingress is asked before the barriers are published. If an ingress does not
// list a grant, it was used or given back before the answer, and the ingress uses no
// other grant of an earlier leader after it has answered. So the grant's messages are
// stored before the barrier, and are counted when the barrier is folded.
func (q *Quota) recover(ctx context.Context, leader uint64, began time.Time) {
	answered, err := q.askAll(ctx, leader, began)
	if err != nil {
		return // with ctx
	}
	q.ledger.allTaken()
	var shards sync.WaitGroup
	for _, shard := range q.shards.All() {
		shards.Go(func() {
			err := q.retry(ctx, "refuse what is late", func(ctx context.Context) error {
				return q.fenceOthers(ctx, shard, answered)
			})
			if err != nil {
				return // with ctx
			}
			// A full stream takes no barrier, but no message either: its accounts lose
			// nothing by waiting.
			err = q.retry(ctx, "fold up to a barrier", func(ctx context.Context) error {
				return q.foldToBarrier(ctx, shard, leader)
			})
			if err == nil {
				q.ledger.openShard(shard)
			}
		})
	}
	shards.Wait()
}

// askAll takes over the grants of every ingress that may have any. It waits for an
// ingress that is silent until the time of all grants of earlier leaders is over. It
// returns the instances that have answered, and fails only with ctx.
func (q *Quota) askAll(ctx context.Context, leader uint64, began time.Time) (answered map[int]bool, err error) {
	// An ingress takes its claim before it asks for grants, and this leader's claim is
	// younger than all grants of earlier leaders. So whoever has seen the bucket up to
	// this claim knows every ingress that can have such grants.
	if err := q.ingresses.wait(ctx, leader); err != nil {
		return nil, err
	}
	answered = make(map[int]bool)
	for {
		var silent []int
		for _, instance := range q.ingresses.instances() {
			if !answered[instance] {
				silent = append(silent, instance)
			}
		}
		if len(silent) == 0 {
			return answered, nil
		}
		if q.now().Sub(began) >= request.GrantTTL {
			q.log.Warn("ingress instances stayed silent, their grants have ended", zap.Ints("instances", silent))
			return answered, nil
		}
		var given []request.Grant
		answers := q.ask(ctx, leader, silent)
		for instance, grants := range answers {
			answered[instance] = true
			for _, one := range grants {
				one.Instance = instance // earlier versions do not send it
				given = append(given, one)
			}
		}
		taken, folded := q.ledger.takeOver(given)
		if err := q.deductArrived(ctx, taken, folded); err != nil {
			return nil, err
		}
		if len(answers) == len(silent) {
			continue
		}
		if err := clock.Sleep(ctx, retryEvery); err != nil {
			return nil, err
		}
	}
}

// ask asks all instances at the same time, and returns the answers that came in time.
func (q *Quota) ask(ctx context.Context, leader uint64, instances []int) map[int][]request.Grant {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var (
		mu      sync.Mutex
		asking  sync.WaitGroup
		answers = make(map[int][]request.Grant)
	)
	for _, instance := range instances {
		asking.Go(func() {
			subject := request.IngressGrants(instance)
			answer, err := bus.Call[request.Grants](ctx, q.bus, subject, request.OpenGrants{Leader: leader})
			if err != nil {
				q.log.Debug("ingress is silent", zap.Int("instance", instance), zap.Error(err))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[instance] = answer.Grants
		})
	}
	asking.Wait()
	return answers
}

// foldToBarrier publishes a barrier and folds up to it: everything that was stored
// before is folded then.
func (q *Quota) foldToBarrier(ctx context.Context, shard streams.Shard, leader uint64) error {
	return q.mark(ctx, shard, event.Barrier{Claim: leader})
}

// mark publishes a barrier, and returns when it is folded.
func (q *Quota) mark(ctx context.Context, shard streams.Shard, barrier event.Barrier) error {
	msg, err := event.Message(streams.BarrierSubject(shard), barrier)
	if err != nil {
		return err
	}
	stored, err := q.bus.JS.PublishMsg(ctx, msg)
	q.noteFull(shard, err)
	if err != nil {
		return fmt.Errorf("publish barrier of shard %v: %w", shard, err)
	}
	return q.file.Wait(ctx, streams.EnqueueStream(shard), stored.Sequence)
}

// noteFull notes that a shard's stream is full, if that is what err says.
func (q *Quota) noteFull(shard streams.Shard, err error) {
	var refused *jetstream.APIError
	if errors.As(err, &refused) && refused.ErrorCode == codeStoreFailed {
		q.ledger.fullShard(shard)
	}
}

// foldAll returns when all messages that a shard has now are folded.
func (q *Quota) foldAll(ctx context.Context, shard streams.Shard) error {
	ctx, cancel := context.WithTimeout(ctx, foldTimeout)
	defer cancel()
	stream := streams.EnqueueStream(shard)
	last, err := q.bus.LastForSubjects(ctx, stream, streams.AcceptedSubjects(shard)...)
	if err != nil {
		return err
	}
	return q.file.Wait(ctx, stream, last)
}

// deductArrived deducts from grants that were just taken over the messages that had
// been folded before. The counts do not say to which grant a message belonged, so the
// stream is read again.
func (q *Quota) deductArrived(ctx context.Context, taken []request.Grant, folded map[string]uint64) error {
	for shard, grants := range q.byShard(taken) {
		stream := streams.EnqueueStream(shard)
		err := q.retry(ctx, "read back grants", func(ctx context.Context) error {
			arrived, err := q.readBack(ctx, shard, grants, folded[stream])
			if err == nil {
				q.ledger.deduct(arrived)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readBack counts the messages of grants up to a sequence.
func (q *Quota) readBack(ctx context.Context, shard streams.Shard, grants []request.Grant, last uint64) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, request.GrantTTL)
	defer cancel()
	wanted := make(map[string]bool)
	accounts := make(map[streams.AccountID]bool)
	var subjects []string
	for _, one := range grants {
		wanted[one.ID] = true
		if !accounts[one.Account] {
			accounts[one.Account] = true
			subjects = append(subjects, streams.AccountSubjects(shard, one.Account), streams.ScheduledSubject(shard, one.Account))
		}
	}
	// No grant is older than GrantTTL. The other half is for clocks that differ.
	since := q.now().Add(-2 * request.GrantTTL)
	arrived := make(map[string]int)
	seen := make(map[streams.MessageID]bool)
	err := readLog(ctx, q.bus, streams.EnqueueStream(shard), subjects, since, last, func(e projection.Event) {
		if c, ok := readCounted(e); ok && wanted[c.grant] && !seen[c.id] {
			seen[c.id] = true
			arrived[c.grant]++
		}
	})
	return arrived, err
}

// readLog reads the messages of subjects stored since a time, up to a sequence.
func readLog(ctx context.Context, b *bus.Bus, stream string, subjects []string, since time.Time, last uint64, f func(projection.Event)) error {
	consumer, err := b.JS.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Description:       "quota reading back grants",
		DeliverPolicy:     jetstream.DeliverByStartTimePolicy,
		OptStartTime:      &since,
		FilterSubjects:    subjects,
		AckPolicy:         jetstream.AckNonePolicy,
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: time.Minute,
	})
	if err != nil {
		return fmt.Errorf("make consumer on %s: %w", stream, err)
	}
	info := consumer.CachedInfo()
	defer func() {
		// If this fails, the engine removes the consumer when nobody pulls.
		_ = b.JS.DeleteConsumer(context.WithoutCancel(ctx), stream, info.Name)
	}()
	for left := info.NumPending; left > 0; {
		batch, err := consumer.Fetch(int(min(left, 512)), jetstream.FetchMaxWait(foldTimeout))
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		before := left
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return fmt.Errorf("read %s: %w", stream, err)
			}
			if meta.Sequence.Stream > last {
				return nil
			}
			left = meta.NumPending
			f(projection.Event{Kind: m.Headers().Get(event.KindHeader), Subject: m.Subject(), Data: m.Data()})
		}
		if err := batch.Error(); err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if left == before {
			return fmt.Errorf("read %s: %d messages did not come", stream, left)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("read %s: %w", stream, ctx.Err())
		}
	}
	return nil
}
