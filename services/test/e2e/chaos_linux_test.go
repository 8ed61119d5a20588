package e2e

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/streams"
)

var (
	chaosRounds = flag.Int("chaos", 0, "how many processes of a cluster are killed by chance, after each was in turn; 0: only one of a kind")
	outageFlag  = flag.Duration("outage", 10*time.Second, "how long a cluster's node stands still, and all nodes are away")
)

// What nobody may wait longer for while one process of a cluster is gone, over all attempts. An election of the engine
// takes up to 9 s, and what was told before it is told again within a second of it; a claim of quota's leader runs out
// after 20 s and takes up to 60 s to be taken over. Among all other tests of a busy machine four times that is allowed:
// there it is to be seen that nothing hangs.
const (
	longestPost    = 12 * time.Second
	longestPull    = 15 * time.Second
	longestLimited = longestPost + 60*time.Second
	// chaosLease outlasts what a phone waits for an answer.
	chaosLease    = 8 * time.Second
	chaosPatience = 7 * time.Second
	// limitedOf is the monthly limit of the accounts that have one: more than a run posts.
	limitedOf = 1_000_000
)

// chaos is a fleet over a cluster.
type chaos struct {
	*fleet
	host *clusterHost
	stop func()
}

var chaosLimited = []string{"limited", "bounded"}

// newChaos starts a cluster with 8 senders and 20 phones at work.
func newChaos(t *testing.T) *chaos {
	t.Helper()
	return newChaosOn(t, newCluster("", 1, chaosParts...))
}

var chaosParts = []kind{{"quota", 2}, {"dispatcher", 2}, {"ingress", 2}}

func newChaosOn(t *testing.T, h *clusterHost) *chaos {
	t.Helper()
	client := newClient()
	client.Timeout = chaosPatience
	f := &fleet{
		journal: newJournal(chaosLease), record: newRecord(), seed: chance(t),
		accounts: append([]string{"shop", "clinic"}, chaosLimited...),
		// What is forgotten takes some leases to come back.
		faithful: *chaosRounds == 0,
	}
	f.trunkline = launch(t, func(dir string, _ int) host { h.dir = dir; return h }, 1)
	f.client = client
	urls := h.urls()
	f.urls.Store(&urls)
	for i, name := range f.accounts {
		f.tokens = append(f.tokens, f.account(name, func(p *streams.Plan) {
			p.Lease, p.Attempts = chaosLease, 100
			if slices.Contains(chaosLimited, name) {
				p.Limit = limitedOf
			}
		}))
		for k := range 2 {
			f.senders = append(f.senders, &sender{name: fmt.Sprintf("%s%d", name, k), account: i, keyed: true, rand: f.random(100 + len(f.senders))})
		}
	}
	c := &chaos{fleet: f, host: h}
	sending, endSenders := context.WithCancel(t.Context())
	waitSenders := f.runSenders(sending)
	working, goHome := context.WithCancel(t.Context())
	var phones sync.WaitGroup
	for _, one := range f.carriers(4, 1) {
		phones.Go(func() { one.run(working) })
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			endSenders()
			waitSenders()
			goHome()
			phones.Wait()
		}
	}
	t.Cleanup(end)
	c.stop = func() {
		endSenders()
		waitSenders()
		for _, name := range f.accounts {
			// A page that its phone forgot is renewed by its next pulls for a while.
			f.awaitDrained(f.journal, name, 2*testkit.Patience)
		}
		end()
	}
	<-f.journal.after(100)
	c.goOn()
	f.waits.take()
	return c
}

// names lists what can be harmed.
func (c *chaos) names() (names []string) {
	for n := range clusterNodes {
		names = append(names, fmt.Sprintf("nats-%d", n))
	}
	return append(names, slices.Sorted(maps.Keys(c.host.parts))...)
}

func (c *chaos) part(name string) *part {
	for _, node := range c.host.nodes {
		if node.name() == name {
			return node
		}
	}
	return c.host.parts[name]
}

// wakes lets a phone wait at one ingress for what is posted to the other.
func (c *chaos) wakes() {
	c.Helper()
	urls, token := *c.urls.Load(), c.account("waiting", nil)
	client := newClient()
	defer client.CloseIdleConnections()
	at := func(url string) api { return api{c.Context(), client, url + "/api/" + token} }
	got := make(chan []outgoing)
	go func() {
		page, _ := at(urls[0]).pull("waits", 1, 30)
		got <- page
	}()
	testkit.Eventually(c.T, "a phone waits", func() bool { // else the message is there before it
		return c.host.ready(c.host.parts["ingress-0"]) == http.StatusOK
	})
	if answer, err := at(urls[1]).post("", sms{number(1), text("wakes", 1)}); err != nil || answer.status != http.StatusOK {
		c.Errorf("post: got %v, %v", answer, err)
	}
	if page := <-got; len(page) != 1 {
		c.Errorf("a phone that waited at another ingress got %d messages, want 1", len(page))
	}
}

// kill kills a process, lets the others work, and starts it again.
func (c *chaos) kill(name string) {
	c.Helper()
	p := c.part(name)
	p.end(c.T, syscall.SIGKILL)
	c.goOn() // before it is there again
	if p.role == "nats" {
		c.host.startNode(c.T, p.number)
	} else {
		c.host.awaitReady(c.T, c.host.startPart(c.T, p.role, p.number))
	}
	c.whole()
	c.goOn() // before the next one
}

// still stops a process where it stands, for as long as is asked, and lets it go on.
func (c *chaos) still(name string, d time.Duration) {
	c.Helper()
	p := c.part(name)
	p.pause(c.T)
	over := time.NewTimer(d)
	defer over.Stop()
	c.goOn()
	<-over.C
	p.resume(c.T)
	c.goOn()
	c.whole()
}

// goOn returns when senders and phones of every account have gone on for a while.
func (c *chaos) goOn() {
	c.Helper()
	before, enough := c.waits.counts(), goneOn
	if *chaosRounds == 0 {
		enough = goneOnShort
	}
	testkit.EventuallyWithin(c.T, 2*longestLimited, "all go on", func() bool {
		for what, now := range c.waits.counts() {
			if now < before[what]+enough {
				return false
			}
		}
		return len(before) > 0
	})
}

// goneOn is how many answers show that somebody goes on, goneOnShort in a run beside other tests.
const (
	goneOn      = 20
	goneOnShort = 8
)

// whole returns when every node has all of every stream.
func (c *chaos) whole() {
	c.Helper()
	begun := time.Now()
	testkit.Eventually(c.T, "the cluster is whole", func() (whole bool) {
		if time.Since(begun) > stuckFor {
			c.restartUnwell()
			begun = time.Now()
		}
		c.withBus(func(b *bus.Bus) {
			ctx, cancel := context.WithTimeout(c.Context(), time.Second)
			defer cancel()
			whole = true
			lister := b.JS.ListStreams(ctx)
			n := 0
			for info := range lister.Info() {
				n++
				whole = whole && info.Cluster != nil && info.Cluster.Leader != "" && len(info.Cluster.Replicas) == clusterNodes-1
				for _, replica := range info.Cluster.Replicas {
					whole = whole && replica.Current && !replica.Offline && replica.Active < 5*time.Second
				}
			}
			whole = whole && lister.Err() == nil && n > 0
		})
		return whole
	})
}

// stuckFor is after how long a node that says of itself that it is not well is started again: the engine leaves a copy of
// a stream behind now and then, when its node comes back from kill -9.
const stuckFor = 30 * time.Second

// restartUnwell starts nodes again that are not well, as whoever watches over them does.
func (c *chaos) restartUnwell() {
	c.Helper()
	for n, node := range c.host.nodes {
		got, err := c.host.client.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", c.host.ports[2*clusterNodes+n]))
		if err == nil {
			_ = got.Body.Close()
		}
		if err == nil && got.StatusCode == http.StatusOK {
			continue
		}
		c.Logf("%s is not well and is started again", node.name())
		node.end(c.T, syscall.SIGTERM)
		c.host.startNode(c.T, n)
	}
}

// bounds fails the test if somebody waited too long since it was last called, by more than was allowed.
func (c *chaos) bounds(what string, more time.Duration) {
	c.Helper()
	took := c.waits.take()
	c.Logf("%v: %s: waited at most %s", c.record.since(time.Now()).Round(time.Second), what, inWords(took))
	for name, took := range took {
		verb, account, _ := strings.Cut(name, " of ")
		most := longestPull
		switch {
		case verb == "post" && slices.Contains(chaosLimited, account):
			most = longestLimited
		case verb == "post":
			most = longestPost
		}
		if *chaosRounds == 0 {
			most *= 4
		}
		if took > most+more {
			c.Errorf("%s: a %s waited %v, want at most %v", what, name, took.Round(time.Millisecond), most+more)
		}
	}
}

func inWords(took map[string]time.Duration) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(took)) {
		words = append(words, fmt.Sprintf("%s %.1fs", name, took[name].Seconds()))
	}
	return strings.Join(words, ", ")
}

// check ends the work, and fails the test for what was lost or doubled.
func (c *chaos) check() {
	c.Helper()
	c.stop()
	got := c.journal.check(c.T)
	c.Logf("%+v", got)
	for _, hash := range c.journal.doubled[:min(len(c.journal.doubled), 3)] {
		c.Log(c.command("message", "show", hash))
	}
	if len(c.journal.refusals) > 0 {
		c.Errorf("got refusals %v, want none", c.journal.refusals)
	}
	if got.Lost != 0 || got.Doubled != 0 || got.Unknown != 0 || got.Refused != 0 || got.Accepted == 0 {
		c.Errorf("got %+v, want none lost, doubled, unknown or refused", got)
	}
	c.record.check(c.T, "leases", leases(chaosLease))
	for _, name := range chaosLimited {
		// A grant whose ingress was killed counts until it ends by itself.
		if got, want := c.used(name), int64(len(c.enqueued(name))); got < want {
			c.Errorf("got %d used by %s, want the %d that are stored at least", got, name, want)
		}
	}
}

// Every process of a cluster is killed in turn, and then any of them: nothing is lost or doubled, and nobody waits
// longer than it takes to notice.
func TestCluster_Killed(t *testing.T) {
	if *chaosRounds == 0 {
		t.Parallel() // most of it waits for the engine to elect a leader
	}
	c := newChaos(t)
	c.wakes()
	names := c.names()
	draw := c.random(0)
	if *chaosRounds == 0 {
		names = []string{fmt.Sprintf("nats-%d", draw.IntN(clusterNodes)), fmt.Sprintf("dispatcher-%d", draw.IntN(2)), fmt.Sprintf("ingress-%d", draw.IntN(2))}
	}
	all := names
	for range *chaosRounds {
		names = append(names, all[draw.IntN(len(all))])
	}
	for _, name := range names {
		c.kill(name)
		c.bounds(name+" killed", 0)
	}
	c.check()
}

// A node stands still, without a word to anybody, and goes on where it stood.
func TestCluster_NodeStandsStill(t *testing.T) {
	c := newChaos(t)
	nodes := []int{c.random(0).IntN(clusterNodes)}
	if *chaosRounds > 0 {
		nodes = []int{0, 1, 2}
	}
	for _, n := range nodes {
		name := fmt.Sprintf("nats-%d", n)
		c.still(name, *outageFlag)
		c.bounds(name+" stood still", 0)
	}
	c.check()
}

// All nodes are away for a while under load: senders are told to come again, no part ends, and all goes on by itself.
func TestCluster_Away(t *testing.T) {
	c := newChaos(t)
	pids := map[string]int{}
	for name, p := range c.host.parts {
		pids[name] = p.cmd.Process.Pid
	}
	for _, node := range c.host.nodes {
		node.end(t, syscall.SIGKILL)
	}
	over := time.NewTimer(*outageFlag)
	defer over.Stop()
	for _, url := range *c.urls.Load() {
		c.refused(url)
	}
	<-over.C
	for n := range clusterNodes {
		c.host.startNode(t, n)
	}
	begun := time.Now()
	c.goOn()
	c.whole()
	for _, p := range c.host.parts {
		c.host.awaitReady(t, p)
		if p.cmd.Process.Pid != pids[p.name()] || p.cmd.Process.Signal(syscall.Signal(0)) != nil {
			t.Errorf("%s has ended", p.name())
		}
	}
	t.Logf("whole %v after the nodes were started", time.Since(begun).Round(time.Millisecond))
	c.bounds("no node", *outageFlag+60*time.Second)
	c.check()
}

// refused posts to an ingress that cannot store anything.
func (c *chaos) refused(url string) {
	c.Helper()
	client := newClient() // which waits for the answer, however late
	defer client.CloseIdleConnections()
	messages := []sms{{number(1), text("away"+url[len(url)-5:], 1)}}
	got, err := api{c.Context(), client, url + "/api/" + c.tokens[0]}.post("", messages...)
	if err != nil || got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		c.Errorf("without an engine: got %v, %v, %v, want 503 with Retry-After", got, got.header, err)
	}
	health, err := client.Get(url + "/health/ready")
	if err != nil || health.StatusCode != http.StatusServiceUnavailable {
		c.Errorf("without an engine: health: got %v, %v, want 503", health, err)
	}
	if err == nil {
		_ = health.Body.Close()
	}
}
