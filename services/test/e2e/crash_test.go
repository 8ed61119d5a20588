package e2e

import (
	"flag"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/testkit/testnote"
)

var (
	rounds   = flag.Int("rounds", 0, "how often the server is killed, or its power fails, in a burst; 0: twice, or three times")
	seedFlag = flag.Uint64("seed", 0, "what chance is drawn from; 0: another one in every run")
)

// chance gives a seed, and tells it to whoever wants to see the same again.
func chance(t *testing.T) uint64 {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	return seed
}

// roundsOr gives the rounds that are asked for, or as many as are enough beside other tests.
func roundsOr(short int) int {
	if *rounds > 0 {
		return *rounds
	}
	return short
}

// What was answered 2xx is delivered, once, whenever the server is killed, and whether its projections survive or not.
func TestCrash(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]func(*burst){
		"restarted":          func(b *burst) { b.Start() },
		"projections gone":   func(b *burst) { b.dropProjections(); b.Start() },
		"killed when folded": func(b *burst) { b.dropProjections(); b.Start(); b.Kill(); b.Start() },
		"projection older":   func(b *burst) { b.putBackOlder(); b.Start() },
		"consumers gone":     func(b *burst) { b.Start(); b.dropConsumers() },
	} {
		t.Run(name, func(t *testing.T) {
			eachShards(t, func(t *testing.T, shards int) {
				crash(t, shards, restart)
			})
		})
	}
}

func crash(t *testing.T, shards int, restart func(*burst)) {
	seed := chance(t)
	draw := rand.New(rand.NewPCG(seed, 1<<32))
	b := newBurst(launch(t, process, shards), seed)
	kills := roundsOr(2)
	for range kills {
		enough := b.journal.after(100 + draw.IntN(300))
		ended := make(chan struct{})
		wait := b.run(t.Context())
		go func() { wait(); close(ended) }()
		select {
		case <-enough:
		case <-ended:
			t.Fatal("the server was gone before it was killed")
		}
		b.Kill()
		<-ended
		restart(b)
	}
	b.repeatUnanswered()
	b.fill()
	b.drain()

	c := b.journal.check(t)
	testnote.Count(t, "%d kills, %+v, %d repeats answered as such", kills, c, b.replays())
	if c.Lost != 0 || c.Doubled != 0 || c.Accepted == 0 {
		t.Errorf("got %+v, want none lost, none doubled", c)
	}
	stored := 0
	for i, name := range b.accounts {
		n := len(b.enqueued(name))
		if stored += n; i == 0 && n != burstLimit {
			t.Errorf("got %d messages of the account with a limit, want %d", n, burstLimit)
		}
	}
	if want := c.Accepted + c.Stored; stored != want {
		t.Errorf("got %d messages stored, want the %d that were handed out", stored, want)
	}
	if got := b.used(b.accounts[0]); got != burstLimit {
		t.Errorf("got %d used, want %d", got, burstLimit)
	}
	live := b.dumps()
	b.verify()
	b.Stop()
	b.dropProjections()
	b.Start()
	if diff := cmp.Diff(live, b.dumps()); diff != "" {
		t.Errorf("dumps before and after the projections were deleted (-before +after):\n%s", diff)
	}
}

// repeatUnanswered repeats the requests whose answers did not come.
func (b *burst) repeatUnanswered() {
	b.Helper()
	for _, s := range b.senders {
		if a := b.api(b.tokens[s.account]); !s.finish(a, b.journal) || len(s.open) > 0 {
			b.Errorf("a request of %s got no answer, or one that leaves it open", s.name)
		}
	}
}

// fill posts for the account with a limit until it is reached.
func (b *burst) fill() {
	b.Helper()
	s := &sender{name: "fill"}
	for a := b.api(b.tokens[0]); !s.full; s.posted++ {
		messages := []sms{{number(s.posted), text(s.name, s.posted)}}
		b.journal.posting(messages)
		got, err := a.post("", messages...)
		b.journal.posted(messages, false, got, err)
		if err != nil || got.status != http.StatusOK && got.status != http.StatusTooManyRequests {
			b.Fatalf("fill up to the limit: got %v, %v", got, err)
		}
		s.full = got.status == http.StatusTooManyRequests
	}
}
