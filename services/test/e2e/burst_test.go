package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/streams"
)

// burst is senders and phones of several accounts that go on over the deaths of their server: each ends when the server
// is gone and goes on where it was when there is one again.
type burst struct {
	*trunkline
	journal  *journal
	accounts []string // names
	tokens   []string
	senders  []*sender
	phones   []*phone
}

// sender posts messages of one account.
type sender struct {
	name    string
	account int
	keyed   bool
	rand    *rand.Rand
	posted  int   // messages
	open    []sms // of a request with a key whose answer did not come
	replays int   // answers that said they were a repeat
	full    bool  // the month's limit is reached
}

// phone pulls and reports for one account.
type phone struct {
	device  string
	account int
	rand    *rand.Rand
	owed    []outgoing // "sent", and the report not answered yet
}

// spread names n accounts that lie in as many shards as there are.
func spread(n int, shards streams.Shards) (names []string) {
	for i := 0; len(names) < n; i++ {
		name := fmt.Sprintf("account-%d", i)
		if shards.Of(streams.AccountIDOf(name)) == streams.Shard(len(names)%int(shards)) {
			names = append(names, name)
		}
	}
	return names
}

const (
	burstLease = time.Second
	burstLimit = 250 // messages of the first account
)

func newBurst(s *trunkline, seed uint64) *burst {
	s.Helper()
	b := &burst{trunkline: s, journal: newJournal(burstLease), accounts: spread(4, s.shards)}
	chance := func(stream int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(stream))) }
	for i, name := range b.accounts {
		b.tokens = append(b.tokens, s.account(name, func(p *streams.Plan) {
			p.Lease, p.Attempts = burstLease, 100 // no kill may use them up
			if i == 0 {
				p.Limit = burstLimit
			}
		}))
		for k, keyed := range []bool{false, false, true, true} {
			b.senders = append(b.senders, &sender{
				name: fmt.Sprintf("a%ds%d", i, k), account: i, keyed: keyed, rand: chance(len(b.senders)),
			})
		}
		for k := range 2 {
			b.phones = append(b.phones, &phone{device: fmt.Sprintf("a%dp%d", i, k), account: i, rand: chance(1000 + len(b.phones))})
		}
	}
	return b
}

// run lets all senders and phones work until ctx is done or the server is gone.
func (b *burst) run(ctx context.Context) (wait func()) {
	waitPhones := b.eachPhone(ctx, (*phone).run)
	var all sync.WaitGroup
	for _, s := range b.senders {
		a := b.api(b.tokens[s.account])
		a.ctx = ctx
		all.Go(func() {
			if s.finish(a, b.journal) {
				s.run(a, b.journal)
			}
		})
	}
	return func() { all.Wait(); waitPhones() }
}

// eachPhone lets all phones work at once.
func (b *burst) eachPhone(ctx context.Context, work func(*phone, api, *journal)) (wait func()) {
	var all sync.WaitGroup
	for _, p := range b.phones {
		a := b.api(b.tokens[p.account])
		a.ctx = ctx
		all.Go(func() { work(p, a, b.journal) })
	}
	return all.Wait
}

// run posts until there is no answer.
func (s *sender) run(a api, j *journal) {
	for !s.full {
		messages := make([]sms, 1+s.rand.IntN(6))
		for i := range messages {
			messages[i] = sms{number(s.posted), text(s.name, s.posted)}
			s.posted++
		}
		j.posting(messages)
		if !s.post(a, j, messages) {
			return
		}
	}
}

// finish repeats the request whose answer did not come, and says whether there is an answer now.
func (s *sender) finish(a api, j *journal) bool { return len(s.open) == 0 || s.post(a, j, s.open) }

// post says whether there was an answer, be it one that leaves the outcome open.
func (s *sender) post(a api, j *journal, messages []sms) bool {
	key := ""
	if s.keyed {
		key = messages[0].Message
		s.open = messages
	}
	got, err := a.post(key, messages...)
	if !j.posted(messages, s.keyed, got, err) {
		s.open = nil
	}
	if got.header.Get("Idempotent-Replayed") != "" {
		s.replays++
	}
	s.full = got.status == http.StatusTooManyRequests
	return err == nil
}

// run pulls and reports until there is no answer.
func (p *phone) run(a api, j *journal) {
	for {
		if len(p.owed) > 0 {
			if _, err := a.report(p.device, success, p.owed); err != nil {
				return
			}
			j.reported(p.owed)
			p.owed = nil
		}
		asked := time.Now()
		page, err := a.pull(p.device, 1+p.rand.IntN(30), 1)
		if err != nil {
			return
		}
		j.pulled(p.device, asked, page)
		p.owed = page
	}
}

// drain runs the phones until everything that is stored has been handed out and reported, and nothing waits.
func (b *burst) drain() {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	wait := b.eachPhone(ctx, func(p *phone, a api, j *journal) {
		for again := true; again; again = rest(ctx, retry) {
			p.run(a, j)
		}
	})
	for _, name := range b.accounts {
		b.awaitDrained(b.journal, name, testkit.Patience)
	}
	stop()
	wait()
}

// replays is how often a repeat was answered as one.
func (b *burst) replays() (n int) {
	for _, s := range b.senders {
		n += s.replays
	}
	return n
}
