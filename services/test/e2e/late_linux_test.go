package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// Each part of a cluster in turn loses the network to its nodes, under load. It notices after a while and finds another
// way, and what lay in the buffers arrives up to five minutes later: nothing is lost, doubled, or stored over a limit.
func TestCluster_Late(t *testing.T) {
	h := newCluster("", 1, chaosParts...)
	h.between = map[string][]*bustest.Network{}
	c := newChaosOn(t, h)
	draw := c.random(0)
	parts := []string{"ingress-0", "ingress-1"}
	if *chaosRounds > 0 {
		parts = []string{"ingress-0", "ingress-1", "quota-0", "quota-1", "dispatcher-0", "dispatcher-1"}
		for range *chaosRounds {
			parts = append(parts, parts[draw.IntN(len(parts))])
		}
	}
	var arriving sync.WaitGroup
	for _, name := range parts {
		l := drawLateness(draw, len(parts) == 2)
		c.holdBack(&arriving, name, l)
		c.bounds(fmt.Sprintf("%s held back, noticed after %v, arrived after %v", name, l.noticed, l.arrives), l.noticed+lateToNotice)
	}
	arriving.Wait()
	c.goOn() // behind what has arrived
	c.check()
}

// lateToNotice is what the others may wait for a part that has just lost its network: a claim of its own runs out.
const lateToNotice = 60 * time.Second

// lateness is when a part notices that its network has stopped, and when what it had sent arrives.
type lateness struct{ noticed, arrives time.Duration }

// drawLateness draws one. A short one is beyond the time for which the engine remembers ids.
func drawLateness(draw *rand.Rand, short bool) lateness {
	between := func(low, high time.Duration) time.Duration {
		return (low + time.Duration(draw.Int64N(int64(high-low)))).Round(time.Millisecond)
	}
	if short {
		return lateness{between(0, 5*time.Second), between(35*time.Second, 40*time.Second)}
	}
	l := lateness{between(0, 40*time.Second), between(time.Second, 300*time.Second)}
	l.noticed = min(l.noticed, l.arrives)
	return l
}

// holdBack stops the network of a part for as long as it takes to notice, lets the others and then all go on, and lets
// arrive what was sent when its time has come.
func (c *chaos) holdBack(arriving *sync.WaitGroup, name string, l lateness) {
	c.Helper()
	noticed, arrives := time.NewTimer(l.noticed), time.NewTimer(l.arrives)
	var late bustest.Stopped
	for _, network := range c.host.between[name] {
		late = append(late, network.Stop()...)
	}
	if len(late) == 0 {
		c.Errorf("%s had no connection to any node", name)
	}
	<-noticed.C
	late.Cut()
	arriving.Go(func() {
		<-arrives.C
		late.Arrive()
	})
	c.host.awaitReady(c.T, c.host.parts[name])
	c.goOn()
}
