package e2e

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/streams"
)

// Two dispatchers and two ingresses serve the same accounts. One of them stands still for longer than a lease and then
// goes on where it stood, or is killed: no message is handed to two phones within one lease, none after it has ended,
// and none is lost.
func TestApart_Dispatchers(t *testing.T) {
	t.Parallel() // most of it waits for leases
	f := newFleet(t)
	draw := f.random(0)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	waitSenders := f.runSenders(ctx)
	working, goHome := context.WithCancel(t.Context())
	defer goHome()
	var phones sync.WaitGroup
	for _, c := range f.carriers(3, 2) {
		phones.Go(func() { c.run(working) })
	}

	type harm struct {
		role   string
		signal syscall.Signal
	}
	harms := []harm{
		{"dispatcher", syscall.SIGKILL}, {"dispatcher", syscall.SIGSTOP}, {"ingress", syscall.SIGSTOP}, {"ingress", syscall.SIGKILL},
	}
	// What a dispatcher had fetched comes back after half a minute: they go first.
	for _, pair := range [][]harm{harms[:2], harms[2:]} {
		draw.Shuffle(2, func(i, k int) { pair[i], pair[k] = pair[k], pair[i] })
	}
	for round, harm := range harms {
		<-f.journal.after(50 + draw.IntN(100))
		number := draw.IntN(2)
		p := f.host.parts[(&part{role: harm.role, number: number}).name()]
		t.Logf("after %v: %s is %v", f.record.since(time.Now()).Round(time.Second), p.name(), harm.signal)
		if harm.signal == syscall.SIGSTOP {
			p.pause(t)
			f.outlast(round, draw)
			p.resume(t)
		} else {
			p.end(t, syscall.SIGKILL)
			f.outlast(round, draw)
			f.host.begin(t, harm.role, number)
			f.locate()
		}
	}
	<-f.journal.after(50)
	stop()
	waitSenders()
	for i, name := range f.accounts {
		t.Logf("account %d: %d messages stored", i, f.awaitDrained(f.journal, name, testkit.Patience))
	}
	goHome()
	phones.Wait()

	c := f.journal.check(t)
	t.Logf("%+v", c)
	if c.Lost != 0 || c.Doubled != 0 || c.Unknown != 0 || c.Accepted == 0 || c.Again == 0 {
		t.Errorf("got %+v, want none lost, doubled or unknown, and some that went out again", c)
	}
	f.record.check(t, "leases", leases(fleetLease))
	for range 4 { // either dispatcher may answer
		f.command("projection", "verify", "dispatcher-0")
	}
}

// newFleet starts a Trunkline of two dispatchers and two ingresses, with accounts and senders, and one account more that
// no phone works for but the probes.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	client := newClient()
	client.Timeout = fleetPatience
	f := &fleet{journal: newJournal(fleetLease), record: newRecord(), seed: chance(t), accounts: []string{"shop", "clinic"}}
	f.trunkline = launch(t, apart(client, kind{"quota", 1}, kind{"dispatcher", 2}, kind{"ingress", 2}), 1)
	f.host = f.trunkline.host.(*apartHost)
	f.locate()
	for _, name := range append(f.accounts, "probe") {
		f.tokens = append(f.tokens, f.account(name, func(p *streams.Plan) { p.Lease, p.Attempts = fleetLease, 100 }))
	}
	for i, name := range f.accounts {
		for range 2 {
			n := len(f.senders)
			f.senders = append(f.senders, &sender{name: name + string(rune('a'+n)), account: i, keyed: true, rand: f.random(100 + n)})
		}
	}
	return f
}

// probePatience is how long a probe waits for an answer before it asks somebody else.
const probePatience = time.Second

// outlast returns once a lease that was given after it was called has lapsed.
func (f *fleet) outlast(round int, draw *rand.Rand) {
	f.Helper()
	probe := len(f.accounts)
	ask := func() api { return f.through(f.Context(), draw, probe) }
	messages := []sms{{number(round), text("probe", round)}}
	f.journal.posting(messages)
	testkit.Eventually(f.T, "a probe is posted", func() bool {
		got, err := ask().post(messages[0].Message, messages...)
		return !f.journal.posted(messages, true, got, err) && got.status == http.StatusOK
	})
	take := func(device string) []outgoing {
		ctx, stop := context.WithTimeout(f.Context(), probePatience)
		defer stop()
		asked := time.Now()
		page, _ := f.through(ctx, draw, probe).pull(device, 1, 0)
		f.journal.pulled(device, asked, page)
		return page
	}
	var first, second []outgoing
	testkit.Eventually(f.T, "a probe is handed out", func() bool {
		first = take("probe-a")
		return len(first) > 0
	})
	testkit.Eventually(f.T, "its lease lapses", func() bool {
		second = take("probe-b")
		return len(second) > 0
	})
	testkit.Eventually(f.T, "it is reported", func() bool {
		_, err := ask().report("probe-b", success, second)
		return err == nil
	})
	f.journal.reported(second)
}
