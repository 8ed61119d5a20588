package dispatcher_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

var shop = streams.AccountIDOf("shop")

func TestPullGivesEachMessageOnceInOrder(t *testing.T) {
	for _, shards := range []streams.Shards{1, 4} {
		h := newHarness(t, shards)
		want := h.enqueue(shop, normal, 25)
		var got []streams.MessageID
		for range 4 {
			got = append(got, h.pull(phone(shop, "", 10))...)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d shards: %s", shards, diff)
		}
	}
}

func TestPullSeesWhatWasJustStored(t *testing.T) {
	h := newHarness(t, 1)
	for range 200 {
		want := h.enqueue(shop, normal, 1)
		if diff := cmp.Diff(want, h.pull(phone(shop, "", 10))); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestUrgentLanesGoFirst(t *testing.T) {
	h := newHarness(t, 1)
	device := streams.DeviceIDOf(shop, "Pixel")
	lane := func(d streams.DeviceID, p streams.Priority, c streams.Class) streams.Lane {
		return streams.Lane{Target: d, Priority: p, Class: c}
	}
	low := h.enqueue(shop, lane(0, streams.Low, streams.Text), 2)
	anyNormal := h.enqueue(shop, lane(0, streams.Normal, streams.Text), 2)
	own := h.enqueue(shop, lane(device, streams.Normal, streams.Text), 2)
	high := h.enqueue(shop, lane(0, streams.High, streams.Text), 2)
	data := h.enqueue(shop, lane(0, streams.High, streams.Other), 1)
	others := h.enqueue(shop, lane(streams.DeviceIDOf(shop, "Nokia"), streams.High, streams.Text), 1)
	h.folded(shop)

	if diff := cmp.Diff(sequence(high, own, anyNormal, low), h.pull(phone(shop, "Pixel", 20))); diff != "" {
		t.Error(diff)
	}
	able := phone(shop, "Nokia", 20)
	able.Other = true
	if diff := cmp.Diff(sequence(others, data), h.pull(able)); diff != "" {
		t.Error(diff)
	}
}

func TestManyPhonesNeverShareAMessage(t *testing.T) {
	h := newHarness(t, 1)
	stopSecond := h.run(t.TempDir(), 1) // the second dispatcher answers every other pull
	defer stopSecond()
	const messages, phones = 600, 12
	want := h.enqueue(shop, normal, messages)
	var mu sync.Mutex
	seen := map[streams.MessageID]int{}
	var wg sync.WaitGroup
	for range phones {
		wg.Go(func() {
			for {
				q := phone(shop, "", 7)
				q.Wait = 3 * time.Second
				got := h.pull(q)
				mu.Lock()
				for _, id := range got {
					seen[id]++
				}
				done := len(seen) == messages
				mu.Unlock()
				if done || len(got) == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, id := range want {
		if seen[id] != 1 {
			t.Errorf("message %s was handed out %d times", id, seen[id])
		}
	}
}

func TestLostConsumerNeverSendsTwice(t *testing.T) {
	h := newHarness(t, 1)
	want := h.enqueue(shop, normal, 30)
	got := h.pull(phone(shop, "", 10))
	name := streams.ConsumerName(shop, normal)
	if err := h.bus.JS.DeleteConsumer(t.Context(), streams.EnqueueStream(0), name); err != nil {
		t.Fatal(err)
	}
	got = append(got, h.pull(phone(shop, "", 10))...)
	h.restart()
	if err := h.bus.JS.DeleteConsumer(t.Context(), streams.EnqueueStream(0), name); err != nil {
		t.Fatal(err)
	}
	got = append(got, h.pull(phone(shop, "", 20))...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestConsumerThatForgotIsMended(t *testing.T) {
	h := newHarness(t, 1)
	first := h.enqueue(shop, normal, 1)
	if diff := cmp.Diff(first, h.pull(phone(shop, "", 10))); diff != "" {
		t.Fatal(diff)
	}
	// Somebody else's hand takes the next one out of the consumer for ever.
	lost := h.enqueue(shop, normal, 1)
	consumer, err := h.bus.JS.Consumer(t.Context(), streams.EnqueueStream(0), streams.ConsumerName(shop, normal))
	if err != nil {
		t.Fatal(err)
	}
	m, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []streams.MessageID
	for range 3 {
		got = append(got, h.pull(phone(shop, "", 10))...)
	}
	if diff := cmp.Diff(lost, got); diff != "" {
		t.Error(diff)
	}
}

func TestPullWaitsForWork(t *testing.T) {
	h := newHarness(t, 1)
	got := make(chan []streams.MessageID)
	for range 3 {
		go func() {
			q := phone(shop, "", 1)
			q.Wait = 20 * time.Second
			got <- h.pull(q)
		}()
	}
	want := h.enqueue(shop, normal, 3)
	seen := map[streams.MessageID]bool{}
	for range 3 {
		for _, id := range <-got {
			seen[id] = true
		}
	}
	for _, id := range want {
		if !seen[id] {
			t.Errorf("message %s woke nobody", id)
		}
	}
}

func TestWaitingPhoneGetsWhatAnotherDispatcherGivesBack(t *testing.T) {
	inTime(t, func(h *harness) {
		h.pull(phone(shop, "", 1))
		want := h.enqueue(shop, normal, 1)
		consumer := streams.ConsumerName(shop, normal)
		if err := h.bus.JS.DeleteConsumer(h.t.Context(), streams.EnqueueStream(0), consumer); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			h.t.Fatal(err)
		}
		_, err := h.bus.JS.CreateConsumer(h.t.Context(), streams.EnqueueStream(0), jetstream.ConsumerConfig{
			Durable: consumer, FilterSubject: streams.EnqueueSubject(0, shop, normal), AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: time.Hour, MemoryStorage: true,
		})
		if err != nil {
			h.t.Fatal(err)
		}
		held, err := h.bus.Fetch(h.t.Context(), streams.EnqueueStream(0), consumer, 1, time.Second)
		if err != nil || len(held) != 1 {
			h.t.Fatalf("fetched %d: %v", len(held), err)
		}
		got := make(chan []streams.MessageID)
		go func() {
			q := phone(shop, "", 1)
			q.Wait = 20 * time.Second
			got <- h.pull(q)
		}()
		time.Sleep(5 * time.Second)
		held[0].Nak()
		if diff := cmp.Diff(want, <-got); diff != "" {
			h.t.Error(diff)
		}
	})
}

func TestPhoneThatHungUpTakesNothing(t *testing.T) {
	h := newHarness(t, 1)
	if got := h.pull(phone(shop, "", 1)); len(got) != 0 {
		t.Fatalf("got %v", got)
	}
	q := phone(shop, "", 1)
	q.Wait, q.Poll = 30*time.Second, "poll-1"
	got := make(chan []streams.MessageID)
	go func() { got <- h.pull(q) }()
	for gone := false; !gone; { // a hang-up before the wait began is not heard
		_, _ = bus.Call[struct{}](t.Context(), h.bus, request.DispatcherHangup(0), request.Hangup{Poll: "poll-1"})
		select {
		case page := <-got:
			if len(page) != 0 {
				t.Errorf("a phone that had gone got %v", page)
			}
			gone = true
		default:
		}
	}
	want := h.enqueue(shop, normal, 1)
	if diff := cmp.Diff(want, h.pull(phone(shop, "", 1))); diff != "" {
		t.Error(diff)
	}
}

// A dispatcher that was stopped between its decision and its answer answers
// nothing that others may have by now.
func TestPageThatComesTooLateIsNotAnswered(t *testing.T) {
	h := newHarness(t, 1)
	want := h.enqueue(shop, normal, 3)
	late := phone(shop, "", 3)
	late.Lease = time.Nanosecond
	if got := h.pull(late); len(got) != 0 {
		t.Errorf("got %v under a lease that has ended", got)
	}
	q := phone(shop, "", 3)
	q.Wait = 20 * time.Second
	if diff := cmp.Diff(want, h.pull(q)); diff != "" {
		t.Error(diff)
	}
}

func TestLeasesAreCapped(t *testing.T) {
	h := newHarness(t, 1)
	h.stop()
	h.cfg.MaxLeases = 2
	h.start()
	ids := h.enqueue(shop, normal, 3)
	h.pull(phone(shop, "", 1))
	h.pull(phone(shop, "", 1))
	_, err := bus.Call[request.Pulled](context.Background(), h.bus, request.DispatcherPull(0), phone(shop, "", 1))
	if err == nil {
		t.Fatal("a pull beyond the cap gave no error")
	}
	h.report(shop, "", streams.Delivered, ids[0])
	if diff := cmp.Diff(ids[2:], h.pull(phone(shop, "", 1))); diff != "" {
		t.Error(diff)
	}
}

func TestPageOfTheLongestTexts(t *testing.T) {
	h := newHarness(t, 1)
	const messages = 200
	text := strings.Repeat("<", 1000) // six bytes each in JSON
	for range messages {
		h.publish(streams.EnqueueSubject(0, shop, normal), event.Enqueued{ID: h.ids.Message(), Text: event.Private(text)})
	}
	page := call[request.Pulled](h, request.DispatcherPull(0), phone(shop, "", messages))
	if got := len(page.Messages); got != messages {
		t.Fatalf("got %d messages, want %d", got, messages)
	}
	if e, err := event.Decode[event.Enqueued](page.Messages[messages-1].Body); err != nil || e.Text.Reveal() != text {
		t.Errorf("the last text came with %d bytes, %v", len(e.Text.Reveal()), err)
	}
}

func TestDispatchersNeverDecideTheSameTwice(t *testing.T) {
	h := newHarness(t, 1)
	ids := h.enqueue(shop, normal, 300)
	short := phone(shop, "", 200)
	short.Lease = time.Second
	for got := 0; got < len(ids); {
		got += len(h.pull(short))
	}
	stopSecond := h.run(t.TempDir(), 1)
	defer stopSecond()
	var mu sync.Mutex
	seen := map[streams.MessageID]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for { // all of them come back, and go out once more
				q := phone(shop, "", 10)
				q.Wait = 5 * time.Second
				got := h.pull(q)
				mu.Lock()
				for _, id := range got {
					seen[id]++
				}
				done := len(seen) == len(ids)
				mu.Unlock()
				if done || len(got) == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if seen[id] != 1 {
			t.Errorf("message %s was handed out %d times", id, seen[id])
		}
	}
	// Nor did anybody store a decision that another one had made void.
	turns := map[event.Attempt]int{}
	for _, m := range h.status() {
		if event.Kind(m.Header.Get(event.KindHeader)) != event.KindLeased {
			continue
		}
		e, err := event.Decode[event.Leased](m.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, turn := range e.Messages {
			if turns[turn]++; turns[turn] > 1 {
				t.Errorf("message %s was leased twice in round %d", turn.ID, turn.Round)
			}
		}
	}
}
