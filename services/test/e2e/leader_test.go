package e2e

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Quota's leader stands still until another one leads, and then goes on where it stood; is killed; or ends in order
// while the one that follows has fallen behind. The limit is never passed, and is reached in the end.
func TestApart_Leader(t *testing.T) {
	nothing := func(*quotas) {}
	for name, test := range map[string]struct{ before, change func(*quotas) }{
		"stopped":            {nothing, (*quotas).stopLeader},
		"killed":             {nothing, (*quotas).killLeader},
		"follower is behind": {(*quotas).fallBehind, (*quotas).followBehind},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it waits for a claim to run out
			changeLeader(t, test.before, test.change)
		})
	}
}

const quotasLimit = 100

// quotas is a fleet whose quota changes its leader, from the first to the second.
type quotas struct {
	*fleet
	reserver    *reserver
	heap        string // the token of an account without a limit
	first, next *part
}

func changeLeader(t *testing.T, before, change func(*quotas)) {
	q := newQuotas(t)
	before(q)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var reserving sync.WaitGroup
	for client := range 6 {
		reserving.Go(func() { q.reserver.run(ctx, client, fmt.Sprintf("room-%d", client%2), q.random(client)) })
	}
	half := q.journal.after(len(q.accounts) * quotasLimit / 2)
	wait := q.runSenders(t.Context())
	<-half
	change(q)
	wait() // until all are told that the limit is reached
	stop()
	reserving.Wait()
	q.reserver.check(t)
	q.reserver.close(t)

	for i, name := range q.accounts {
		q.fill(i)
		if got := len(q.enqueued(name)); got != quotasLimit {
			t.Errorf("got %d messages of %s stored, want the limit of %d", got, name, quotasLimit)
		}
		if got := q.used(name); got != quotasLimit {
			t.Errorf("got %d used by %s, want %d", got, name, quotasLimit)
		}
	}
	c := q.journal.count()
	t.Logf("%+v", c)
	if want := len(q.accounts) * quotasLimit; c.Accepted != want || c.Unknown != 0 || c.Doubled != 0 {
		t.Errorf("got %+v, want %d accepted, and none unknown or doubled", c, want)
	}
	for range 4 { // either may answer
		q.command("projection", "verify", "quota")
	}
}

func newQuotas(t *testing.T) *quotas {
	t.Helper()
	client := newClient()
	client.Timeout = testkit.Patience
	f := &fleet{journal: newJournal(time.Hour), record: newRecord(), seed: chance(t), accounts: []string{"shop", "clinic", "bank"}}
	f.trunkline = launch(t, apart(client, kind{"quota", 2}, kind{"dispatcher", 1}, kind{"ingress", 2}), 1)
	f.host = f.trunkline.host.(*apartHost)
	f.locate()
	for i, name := range f.accounts {
		f.tokens = append(f.tokens, f.account(name, func(p *streams.Plan) { p.Limit = quotasLimit }))
		for k := range 3 {
			f.senders = append(f.senders, &sender{name: fmt.Sprintf("%s%d", name, k), account: i, keyed: true, rand: f.random(100 + len(f.senders))})
		}
	}
	q := &quotas{fleet: f, heap: f.account("heap", nil), first: f.host.parts["quota-0"], next: f.host.parts["quota-1"]}
	q.reserver = newReserver(t, f.dir)
	return q
}

// follow returns once another leader knows what is in use.
func (q *quotas) follow() {
	q.Helper()
	testkit.Eventually(q.T, "another quota leads", func() bool {
		_, err := bus.Call[request.Usage](q.Context(), q.reserver.bus, request.QuotaUsage, request.UsageOf{Account: streams.AccountIDOf("late")})
		return err == nil
	})
}

func (q *quotas) stopLeader() {
	q.Helper()
	q.first.pause(q.T)
	if n := q.host.answering(q.T, "quota"); n != 0 {
		q.Fatalf("%s did not lead", q.first.name())
	}
	// These reach the one that stands still, and wait there until it goes on.
	ctx, hangUp := context.WithTimeout(q.Context(), testkit.Patience)
	defer hangUp()
	var late sync.WaitGroup
	for range 8 {
		late.Go(func() {
			_, err := bus.Call[request.Grant](ctx, q.reserver.bus, request.QuotaReserve, reserveFor("late", 1))
			if !fault.Is(err, fault.Unavailable) || fault.As(err).Code == "no_answer" {
				q.Errorf("a leader whose claim has run out was asked for room: got %v, want that it does not lead", err)
			}
		})
	}
	q.follow()
	q.first.resume(q.T)
	late.Wait()
}

func (q *quotas) killLeader() {
	q.Helper()
	q.first.end(q.T, syscall.SIGKILL)
	q.follow()
	q.host.begin(q.T, "quota", 0)
}

// fallBehind lets so much be stored while the one that follows stands still that folding it takes a while.
func (q *quotas) fallBehind() {
	q.Helper()
	q.next.pause(q.T)
	a := q.api(q.heap)
	for i := range 20 {
		a.queue(q.T, fmt.Sprintf("heap%d", i), 1000)
	}
}

func (q *quotas) followBehind() {
	q.Helper()
	q.first.end(q.T, syscall.SIGTERM)
	q.next.resume(q.T)
	q.follow()
	q.storm()
	q.host.begin(q.T, "quota", 0)
}

// storm posts as much as the limit is, all at once.
func (q *quotas) storm() {
	var all sync.WaitGroup
	for account, name := range q.accounts {
		for k := range 10 {
			draw := q.random(300 + 10*account + k)
			all.Go(func() {
				messages := make([]sms, quotasLimit/10)
				for i := range messages {
					messages[i] = sms{number(i), text("storm-"+name, k*len(messages)+i)}
				}
				q.journal.posting(messages)
				got, err := q.through(q.Context(), draw, account).post("", messages...)
				q.journal.posted(messages, false, got, err)
			})
		}
	}
	all.Wait()
}

// fill posts for an account until its limit is reached: what was refused may have been so for what was given back since.
func (q *quotas) fill(account int) {
	q.Helper()
	s := &sender{name: "fill-" + q.accounts[account], account: account, keyed: true, rand: q.random(200 + account)}
	for !s.full {
		messages := []sms{{number(s.posted), text(s.name, s.posted)}}
		s.posted++
		q.journal.posting(messages)
		for s.open = messages; len(s.open) > 0; {
			if !s.post(q.through(q.Context(), s.rand, account), q.journal, s.open) {
				q.Fatalf("a post of %s got no answer", s.name)
			}
		}
	}
}
