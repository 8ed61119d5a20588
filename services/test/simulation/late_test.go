package simulation

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// networks lie between the parts and their engine, one for each part that has been started.
type networks struct {
	mu  sync.Mutex
	all []*bustest.Network

	arriving sync.WaitGroup
}

// between is a network of one part's own.
func (n *networks) between(engine nats.InProcessConnProvider) nats.InProcessConnProvider {
	one := bustest.NewNetwork(engine.InProcessConn)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, one)
	return one
}

// begin forgets the networks of a product that has ended.
func (n *networks) begin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = nil
}

// holdBack stops the network of one part or of all, for as long as they take to notice and longer. What was on its way
// arrives 1 to 300 s after it was sent, when the parts have long found another way, or the product was started again.
func (w *world) holdBack() {
	w.model.mu.Lock()
	w.model.disorder = true
	w.model.stats.HeldBack++
	w.model.mu.Unlock()
	w.networks.mu.Lock()
	stopping := w.networks.all
	if w.rng.IntN(2) == 0 {
		i := w.rng.IntN(len(stopping))
		stopping = stopping[i : i+1]
	}
	w.networks.mu.Unlock()
	notice, arrive := time.Duration(w.rng.IntN(40_000))*time.Millisecond, time.Duration(1000+w.rng.IntN(299_000))*time.Millisecond
	var late bustest.Stopped
	for _, n := range stopping {
		late = append(late, n.Stop()...)
	}
	w.networks.arriving.Go(func() {
		time.Sleep(min(notice, arrive))
		late.Cut()
		time.Sleep(arrive - min(notice, arrive))
		late.Arrive()
	})
}
