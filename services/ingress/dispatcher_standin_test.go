package ingress_test

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// dispatcher stands in for dispatchers of every shard: it hands out each message once, in the order of the stream,
// and keeps states in memory.
type dispatcher struct {
	bus    *bus.Bus
	shards streams.Shards

	// Pulls holds every pull as it came, for tests to read.
	Pulls chan request.Pull
	// Mute leaves questions about reports without an answer.
	Mute atomic.Bool

	mu       sync.Mutex
	read     map[streams.Shard]uint64 // up to which sequence
	moved    chan struct{}            // closed when more was read
	messages []*message
	hung     map[string]chan struct{}
}

type message struct {
	account streams.AccountID
	id      streams.MessageID
	body    []byte
	state   streams.State
	device  streams.DeviceID
}

// newDispatcher makes one that has read nothing.
func newDispatcher(b *bus.Bus, shards streams.Shards) *dispatcher {
	return &dispatcher{
		bus: b, shards: shards, Pulls: make(chan request.Pull, 1<<14),
		read: map[streams.Shard]uint64{}, moved: make(chan struct{}), hung: map[string]chan struct{}{},
	}
}

// Name is "dispatcher".
func (d *dispatcher) Name() string { return "dispatcher" }

// Run answers requests.
func (d *dispatcher) Run(ctx context.Context) error {
	o := bus.ServeOptions{Name: "dispatcher", Version: "0.0.0"}
	for _, shard := range d.shards.All() {
		consumer, err := d.bus.JS.OrderedConsumer(ctx, streams.EnqueueStream(shard), jetstream.OrderedConsumerConfig{})
		if err != nil {
			return err
		}
		consuming, err := consumer.Consume(func(m jetstream.Msg) { d.enqueued(shard, m) })
		if err != nil {
			return err
		}
		defer func() {
			consuming.Stop()
			<-consuming.Closed()
		}()
		o.Endpoints = append(o.Endpoints,
			bus.Endpoint{Subject: request.DispatcherPull(shard), Handler: bus.Handle(func(ctx context.Context, q request.Pull) (request.Pulled, error) {
				return d.pull(ctx, shard, q)
			})},
			bus.Endpoint{Subject: request.DispatcherHangup(shard), Handler: bus.Handle(d.hangup), Broadcast: true},
			bus.Endpoint{Subject: request.DispatcherFind(shard), Handler: bus.Handle(d.find)},
			bus.Endpoint{Subject: request.DispatcherPreview(shard), Handler: bus.Handle(d.preview)},
			bus.Endpoint{Subject: request.DispatcherChanged(shard), Handler: bus.Handle(func(ctx context.Context, q request.ChangedBy) (request.Changed, error) {
				return d.changed(ctx, shard, q)
			})},
		)
	}
	return d.bus.Serve(ctx, o)
}

func (d *dispatcher) enqueued(shard streams.Shard, m jetstream.Msg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	meta, err := m.Metadata()
	if err != nil {
		return
	}
	if account, _, err := streams.ParseEnqueueSubject(m.Subject()); err == nil {
		e, _ := event.Decode[event.Enqueued](m.Data())
		d.messages = append(d.messages, &message{account: account, id: e.ID, body: m.Data(), state: streams.Pending})
	}
	d.read[shard] = meta.Sequence.Stream
	close(d.moved)
	d.moved = make(chan struct{})
}

// catchUp waits until everything stored so far has been read.
func (d *dispatcher) catchUp(ctx context.Context, shard streams.Shard) error {
	stream, err := d.bus.JS.Stream(ctx, streams.EnqueueStream(shard))
	if err != nil {
		return err
	}
	last := stream.CachedInfo().State.LastSeq
	for {
		d.mu.Lock()
		read, moved := d.read[shard], d.moved
		d.mu.Unlock()
		if read >= last {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *dispatcher) pull(ctx context.Context, shard streams.Shard, q request.Pull) (request.Pulled, error) {
	select {
	case d.Pulls <- q:
	default:
	}
	if err := d.catchUp(ctx, shard); err != nil {
		return request.Pulled{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, q.Wait)
	defer cancel()
	for {
		pulled, moved, hung := d.lease(q)
		if len(pulled.Messages) > 0 || pulled.Needs > 0 {
			return pulled, nil
		}
		select {
		case <-moved:
		case <-hung:
			return pulled, nil
		case <-waiting.Done():
			return pulled, nil
		}
	}
}

func (d *dispatcher) lease(q request.Pull) (request.Pulled, <-chan struct{}, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var pulled request.Pulled
	var page []*message
	size := 0
	for _, m := range d.messages {
		if m.account == q.Account && m.state == streams.Pending && len(page) < q.Limit {
			page = append(page, m)
			size += len(m.body)
		}
	}
	if q.Bytes > 0 && size > q.Bytes {
		pulled.Needs = size
		return pulled, d.moved, d.hangs(q.Poll)
	}
	for _, m := range page {
		m.state, m.device = streams.Leased, q.Device
		pulled.Messages = append(pulled.Messages, request.Outgoing{ID: m.id, Body: m.body})
	}
	return pulled, d.moved, d.hangs(q.Poll)
}

// hangs is closed when a poll is hung up.
func (d *dispatcher) hangs(poll string) chan struct{} {
	hung := d.hung[poll]
	if hung == nil {
		hung = make(chan struct{})
		d.hung[poll] = hung
	}
	return hung
}

func (d *dispatcher) hangup(_ context.Context, q request.Hangup) (struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.hangs(q.Poll))
	return struct{}{}, nil
}

func (d *dispatcher) find(context.Context, request.Find) (request.Found, error) {
	return request.Found{}, nil
}

// WasHung says whether a poll was hung up.
func (d *dispatcher) WasHung(poll string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.hangs(poll):
		return true
	default:
		return false
	}
}

// Hung waits until a poll is hung up.
func (d *dispatcher) Hung(poll string) {
	d.mu.Lock()
	hung := d.hangs(poll)
	d.mu.Unlock()
	<-hung
}

func (d *dispatcher) preview(ctx context.Context, q request.Preview) (request.Changed, error) {
	if d.Mute.Load() {
		<-ctx.Done()
		return request.Changed{}, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := request.Changed{Messages: make([]request.Change, len(q.Messages))}
	for i, said := range q.Messages {
		for _, m := range d.messages {
			if m.id == said.ID && m.account == q.Account {
				would := *m
				changed.Messages[i] = would.report(said.State, q.Device)
				changed.Messages[i].State = m.state
			}
		}
	}
	return changed, nil
}

func (d *dispatcher) changed(ctx context.Context, shard streams.Shard, q request.ChangedBy) (request.Changed, error) {
	if d.Mute.Load() {
		<-ctx.Done()
		return request.Changed{}, ctx.Err()
	}
	stored, err := d.bus.Get(ctx, streams.StatusStream(shard), q.Seq)
	if err != nil {
		return request.Changed{}, err
	}
	e, err := event.Decode[event.Reported](stored.Data)
	if err != nil {
		return request.Changed{}, err
	}
	reports := map[streams.MessageID]event.Report{}
	for _, r := range e.Messages {
		reports[r.ID] = r
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := request.Changed{Messages: make([]request.Change, len(q.Messages))}
	for i, id := range q.Messages {
		for _, m := range d.messages {
			if m.id == id && m.account == q.Account {
				changed.Messages[i] = m.report(reports[id].State, e.Device)
			}
		}
	}
	return changed, nil
}

func (m *message) report(state streams.State, device streams.DeviceID) request.Change {
	change := request.Change{Known: true}
	holds := m.state == streams.Leased && (m.device == 0 || device == 0 || m.device == device)
	if state.Success() && state > m.state || state == streams.Failed && holds {
		m.state, change.Changed = state, true
	}
	change.State = m.state
	return change
}
