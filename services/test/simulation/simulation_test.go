package simulation

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/pkg/testkit/testnote"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

var (
	seed   = flag.Uint64("seed", 0, "run this one seed")
	fresh  = flag.Bool("fresh", false, "begin with a seed that nobody has seen, and not with the first one")
	seeds  = flag.Int("seeds", 0, "how many seeds to run; 0 runs for the time of -for")
	during = flag.Duration("for", 10*time.Second, "how long to go on with new seeds")
)

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

func TestLawsHold(t *testing.T) {
	if *seed != 0 {
		run(t, *seed)
		return
	}
	first := uint64(1)
	if *fresh {
		first = rand.Uint64()>>16 | 1
	}
	began := time.Now()
	var total stats
	n := 0
	for ; n < *seeds || *seeds == 0 && time.Since(began) < *during; n++ {
		total.add(run(t, first+uint64(n)))
		if t.Failed() {
			break
		}
	}
	testnote.Count(t, "%d seeds from %d: %d simulated hours, %d crashes, %+v", n, first, int(total.Simulated.Hours()), total.Crashes, total)
}

func (s *stats) add(o stats) {
	s.Accepted += o.Accepted
	s.Unknown += o.Unknown
	s.Refused += o.Refused
	s.HandedOut += o.HandedOut
	s.Reported += o.Reported
	s.Cancelled += o.Cancelled
	s.Requeued += o.Requeued
	s.Crashes += o.Crashes
	s.HeldBack += o.HeldBack
	s.Steps += o.Steps
	s.Simulated += o.Simulated
}

// run simulates one seed.
func run(t *testing.T, seed uint64) stats {
	var s stats
	ok := t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 1))
		// Some hours before a month ends.
		begin := time.Date(2026, time.Month(2+rng.IntN(20)), 1, 0, 0, 0, 0, time.UTC).Add(-time.Duration(rng.IntN(240)) * time.Minute)
		bustest.SimulateFrom(t, begin, func(t *testing.T) { s = simulate(t, seed, rng) })
	})
	if !ok {
		t.Logf("again: go test ./services/test/simulation -run TestLawsHold -seed %d", seed)
	}
	return s
}

func simulate(t *testing.T, seed uint64, rng *rand.Rand) stats {
	began := time.Now()
	w := &world{t: t, rng: rng, dir: memoryDir(t), shards: 1 + 2*rng.IntN(2), model: newModel()}
	w.start()
	w.found()

	sending, carrying := make(chan struct{}), make(chan struct{})
	var senders, others sync.WaitGroup
	for i, own := range w.tenants {
		for j := range 1 + rng.IntN(2) {
			a := &actor{world: w, rng: rand.New(rand.NewPCG(seed, uint64(100+10*i+j))), name: fmt.Sprintf("s%d%d", i, j), own: own, over: sending}
			senders.Go(a.send)
		}
		planner := &actor{world: w, rng: rand.New(rand.NewPCG(seed, uint64(300+10*i))), name: fmt.Sprintf("t%d", i), own: own, over: sending}
		senders.Go(planner.plan)
		for j := range 1 + rng.IntN(3) {
			a := &actor{world: w, rng: rand.New(rand.NewPCG(seed, uint64(500+10*i+j))), name: fmt.Sprintf("p%d%d", i, j), own: own, over: carrying}
			c := drawCharacter(a.rng)
			others.Go(func() { a.carry(c) })
		}
	}
	overseer := &actor{world: w, rng: rand.New(rand.NewPCG(seed, 900)), over: sending}
	senders.Go(overseer.oversee)

	for range 2 + rng.IntN(6) {
		time.Sleep(time.Duration(rng.IntN(600_000)) * time.Millisecond)
		switch rng.IntN(8) {
		case 0:
			w.forgetConsumers()
		case 1, 2:
			w.holdBack()
		case 3, 4:
			w.stepClock()
		default:
			w.crash()
		}
		if len(w.model.broken) > 0 {
			break
		}
	}
	close(sending)
	senders.Wait()
	w.machine.Right()
	w.drain()
	close(carrying)
	others.Wait()
	w.networks.arriving.Wait()
	quiesce()
	w.verify()
	w.reckon()
	w.stop()
	for _, breach := range w.model.broken {
		t.Error(breach)
	}
	w.model.stats.Simulated = time.Since(began)
	return w.model.stats
}

// drainTime is what the longest lease can take, attempt after attempt, with a
// phone that reports once and then only shows itself, and some more.
const drainTime = attempts*3*longestLease + 10*time.Minute

// drain lets healthy phones carry all that is left.
func (w *world) drain() {
	var phones sync.WaitGroup
	over := make(chan struct{})
	for i, own := range w.tenants {
		a := &actor{world: w, rng: rand.New(rand.NewPCG(uint64(i), 7)), name: fmt.Sprintf("drain%d", i), own: own, over: over}
		phones.Go(func() { a.carry(character{limit: 200, named: true, wait: 30 * time.Second}) })
	}
	begun := time.Now()
	time.Sleep(2 * longestLease)
	for time.Since(begun) < drainTime && w.unfinished() {
		time.Sleep(longestLease)
	}
	close(over)
	phones.Wait()
}

// unfinished says whether there are messages that a phone is still to end.
func (w *world) unfinished() bool {
	for _, own := range w.tenants {
		open := []streams.State{streams.Scheduled, streams.Pending}
		if own.policy != streams.Hold { // what a phone holds for ever is its own
			open = append(open, streams.Leased)
		}
		shard := streams.Shards(w.shards).Of(own.id)
		listed, ok := operate[request.Listed](w, request.DispatcherList(shard), request.List{Account: own.id, Limit: 1, States: open})
		if !ok || len(listed.Messages) > 0 {
			return true
		}
	}
	return false
}

// hashOf looks up a message by how its sender calls it, and gives "" without an answer.
func (w *world) hashOf(own *tenant, name string) string {
	found, ok := operate[request.Found](w, request.DispatcherFind(streams.Shards(w.shards).Of(own.id)), request.Find{Account: own.id, Ref: name})
	if !ok || found.Group == nil {
		return ""
	}
	return found.Group.ID.String()
}

// reckon compares what the product knows in the end with what the others know.
func (w *world) reckon() {
	w.model.mu.Lock()
	defer w.model.mu.Unlock()
	states := map[string]streams.State{}
	shards := streams.Shards(w.shards)
	for _, own := range w.tenants {
		before := streams.MessageID(0)
		for {
			listed, ok := operate[request.Listed](w, request.DispatcherList(shards.Of(own.id)), request.List{Account: own.id, Limit: 1000, Before: before})
			if !ok {
				w.t.Fatal("messages cannot be listed")
			}
			for _, m := range listed.Messages {
				states[m.ID.String()], before = m.State, m.ID
			}
			if len(listed.Messages) < 1000 {
				break
			}
		}
	}
	w.reckonMonths()
	for text, s := range w.model.sms {
		own := w.tenants[slices.IndexFunc(w.tenants, func(own *tenant) bool { return own.name == s.account })]
		if s.accepted && s.hash == "" {
			s.hash = w.hashOf(own, s.name)
		}
		state, known := states[s.hash]
		switch {
		case s.accepted && !known:
			w.model.breach("%s was accepted as %s, and is lost", text, s.hash)
		case !known:
		case s.ended == "delivered" && state != streams.Delivered:
			w.model.breach("%s was reported as delivered, and is %s", text, state)
		case state == streams.Expired && s.until.IsZero():
			w.model.breach("%s has expired, and was valid for days", text)
		case !state.Terminal() && (state != streams.Leased || own.policy != streams.Hold):
			// What a phone holds for ever is its own, also if it has no name and never got the answer.
			w.model.breach("%s is still %s in the end", text, state)
		case s.handed == 0 && state == streams.Delivered:
			w.model.breach("%s was delivered, and no phone ever had it", text)
		}
	}
}
