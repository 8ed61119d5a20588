package messages

import (
	"cmp"
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/nats-io/nuid"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// MaxWait is the longest that a pull waits for work.
	//
	// Limit: a pull waits at most 30 s for work. Beyond it: 30 s are taken; below 0 is 422 `invalid_wait`.
	// Used up by: phones that want to wait longer. Hurts: nobody: they pull again. Test: TestParsePull.
	MaxWait = 30 * time.Second
	// Limit: a dispatcher has 5 s to answer a pull, beside the wait. Beyond it: 503 `dispatcher_unavailable`.
	// Used up by: a dispatcher that is slow or away. Hurts: phones of its shard. Test: TestPull_MuteDispatcher.
	pullWithin = 5 * time.Second
	// Limit: 1,000 phones of an account wait at an ingress, as many as it may have names of. Beyond it: 429
	// `too_many_waiting` with Retry-After 8, before anything is looked up; pulls without `wait` are answered.
	// Used up by: one account. Hurts: only that account. Test: TestPull_TooManyWait.
	maxWaits = streams.MaxDevices
	// hangupWithin is how long a wait may take to end once it was told to.
	hangupWithin = time.Second
)

// Pull asks for messages to send.
type Pull struct {
	Caller access.Caller
	Device string // the phone's name, empty if it gave none
	Limit  int
	Wait   time.Duration       // for work, if there is none: at most MaxWait
	Policy streams.LapsePolicy // the dialect's, for accounts that set none
	Stop   <-chan struct{}     // ends the wait when it is closed
}

// Outgoing is a message for a phone to send. It is leased to the phone.
type Outgoing struct {
	ID streams.MessageID
	Content
}

var errWaits = &fault.Error{
	Kind: fault.RateLimited, Code: "too_many_waiting", Text: "Too many of this account's phones wait for messages, try again", RetryAfter: pollSlice,
}

// waits counts the phones of each account that wait for work. Each of them takes memory: a connection, its goroutines,
// and a request to a dispatcher.
type waits struct {
	mu sync.Mutex
	of map[streams.AccountID]int
}

// begin counts one more, until leave is called. It is a fault if there are too many.
func (w *waits) begin(a streams.AccountID) (leave func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[a] >= maxWaits {
		return nil, errWaits
	}
	if w.of == nil {
		w.of = map[streams.AccountID]int{}
	}
	w.of[a]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.of[a]--; w.of[a] == 0 {
			delete(w.of, a)
		}
	}, nil
}

// Pull leases messages to a phone, the most urgent first, and of those the oldest. There may be none. It is a fault
// RateLimited if the phone wants to wait and maxWaits of the account's phones wait already.
func (m *Messages) Pull(ctx context.Context, cmd Pull) ([]Outgoing, error) {
	account := cmd.Caller.Account
	if cmd.Wait > 0 { // before anything that costs more
		leave, err := m.waits.begin(account.ID)
		if err != nil {
			return nil, err
		}
		defer leave()
	}
	device, err := m.fleet.Contact(ctx, account.ID, cmd.Device)
	if err != nil {
		return nil, err
	}
	shard := m.shards.Of(account.ID)
	if err := m.storage.mayPull(shard, account.ID); err != nil {
		return nil, err
	}
	q := request.Pull{
		Account:  account.ID,
		Device:   device,
		Name:     cmd.Device,
		Limit:    cmd.Limit,
		Wait:     min(cmd.Wait, MaxWait),
		Lease:    cmp.Or(account.Plan.Lease, streams.DefaultLease),
		Attempts: cmp.Or(account.Plan.Attempts, streams.DefaultAttempts),
		Policy:   cmp.Or(account.Plan.AfterLapse, cmd.Policy),
	}
	room := answerRoom{cmd.Caller.Room}
	q.Bytes = room.forPage(q.Limit)
	pulled, err := m.askOrPoll(ctx, shard, q, cmd.Stop)
	for range needsTries {
		if err != nil || pulled.Needs == 0 {
			break
		}
		if err := room.weigh(pulled.Needs); err != nil {
			return nil, err
		}
		q.Bytes, q.Fit, q.Wait = pulled.Needs, true, 0
		pulled, err = m.askOrPoll(ctx, shard, q, cmd.Stop)
	}
	if err != nil {
		return nil, err
	}
	room.pageOf(pulled)
	messages := make([]Outgoing, len(pulled.Messages))
	for i, one := range pulled.Messages {
		e, err := event.Decode[event.Enqueued](one.Body)
		if err != nil {
			return nil, err
		}
		messages[i] = Outgoing{ID: one.ID, Content: contentOf(e)}
		m.ids.note(one.ID)
	}
	m.metrics.pulled.Add(float64(len(messages)))
	return messages, nil
}

func (m *Messages) askOrPoll(ctx context.Context, shard streams.Shard, q request.Pull, stop <-chan struct{}) (request.Pulled, error) {
	if q.Wait > 0 {
		return m.poll(ctx, shard, q, stop)
	}
	return m.ask(ctx, shard, q, stop)
}

func (m *Messages) ask(ctx context.Context, shard streams.Shard, q request.Pull, _ <-chan struct{}) (request.Pulled, error) {
	ctx, cancel := context.WithTimeout(ctx, q.Wait+pullWithin)
	defer cancel()
	pulled, err := bus.Call[request.Pulled](ctx, m.bus, request.DispatcherPull(shard), q)
	if fault.Is(err, fault.Unavailable) {
		f := fault.New(fault.Unavailable, "dispatcher_unavailable", "Messages cannot be handed out now, try again")
		f.RetryAfter = retrySoon
		return pulled, f.With(err)
	}
	return pulled, err
}

// A longer wait is made of several, since nobody hears when a dispatcher is gone.
//
// Limit: one dispatcher is asked to wait for 8 s. Beyond it: it is asked again, perhaps another one, until the wait is
// over.
// Used up by: every phone that waits. Hurts: nobody: it costs one more request. Test: TestPull_MuteDispatcher.
const pollSlice = 8 * time.Second

// poll asks and waits, one slice after the other.
func (m *Messages) poll(ctx context.Context, shard streams.Shard, q request.Pull, stop <-chan struct{}) (request.Pulled, error) {
	until := m.now().Add(q.Wait)
	for {
		q.Wait = min(until.Sub(m.now()), pollSlice)
		if q.Wait <= 0 {
			return request.Pulled{}, nil
		}
		pulled, err := m.pollOnce(ctx, shard, q, stop)
		if err != nil || len(pulled.Messages) > 0 || pulled.Needs > 0 || ctx.Err() != nil || isClosed(stop) {
			return pulled, err
		}
		if pulled.Crowded && !rest(ctx, min(until.Sub(m.now()), pollSlice), stop) {
			return pulled, nil
		}
	}
}

// rest waits here, where a dispatcher has too many of the account's phones waiting already. It is false if the phone
// hangs up or we stop.
func rest(ctx context.Context, d time.Duration, stop <-chan struct{}) bool {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
		return true
	case <-ctx.Done():
		return false
	case <-stop:
		return false
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// pollOnce asks a dispatcher to wait for work. The dispatcher must not lease messages to a phone that has gone, so it is
// told when the phone hangs up or this ingress stops. The request itself is not cancelled then: a page may have been
// leased just before, and goes to the phone if that is still there.
func (m *Messages) pollOnce(ctx context.Context, shard streams.Shard, q request.Pull, stop <-chan struct{}) (request.Pulled, error) {
	q.Poll = nuid.Next()
	asking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-asking.Done():
			return
		case <-ctx.Done():
		case <-stop:
		}
		m.hangUp(shard, q.Poll)
		// What was leased before that still arrives.
		over := time.NewTimer(hangupWithin)
		defer over.Stop()
		select {
		case <-asking.Done():
		case <-over.C:
			cancel()
		}
	}()
	pulled, err := m.ask(asking, shard, q, nil)
	ended := err != nil && asking.Err() != nil
	cancel()
	<-watched
	if ended {
		return request.Pulled{}, nil // told to end, and not answered
	}
	return pulled, err
}

// hangUp tells all dispatchers of the shard to end a wait. There is no answer.
func (m *Messages) hangUp(shard streams.Shard, poll string) {
	data, err := json.Marshal(request.Hangup{Poll: poll})
	if err == nil {
		_ = m.bus.Conn.Publish(request.DispatcherHangup(shard), data)
	}
}
