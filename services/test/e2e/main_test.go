// Package e2e shows the whole product at work: senders and phones speak HTTP to a running Trunkline, which is stopped,
// killed and bereft of its projections, and nothing that it answered may get lost.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var clusterFlag = flag.Bool("cluster", false, "run the tests on a cluster that would else run everywhere")

// clustered runs the parts over a cluster, where that can be done.
var clustered newHost

func TestMain(m *testing.M) {
	bePart()
	beHostile()
	flag.Parse()
	if *clusterFlag && clustered != nil {
		hosts = map[string]newHost{"cluster": clustered}
	}
	dir, err := os.MkdirTemp("", "trunkline-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	logs.dir, built.dir = dir, dir
	goleak.VerifyTestMain(m,
		// The engine keeps one clock for the whole process.
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		// It starts processes that end with this one.
		goleak.IgnoreTopFunction("github.com/trunkline-sms/trunkline/services/test/e2e.spawnAll"),
		goleak.Cleanup(func(code int) {
			if err := logs.check(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
			if code == 0 {
				_ = os.RemoveAll(dir)
			}
			os.Exit(code)
		}))
}

// eachShards runs a test on a deployment of one shard and on one of several.
func eachShards(t *testing.T, f func(t *testing.T, shards int)) {
	t.Helper()
	for _, shards := range []int{1, 4} {
		t.Run(fmt.Sprintf("shards=%d", shards), func(t *testing.T) { f(t, shards) })
	}
}

// hosts are where everywhere runs tests.
var hosts = map[string]newHost{"inside": inside, "process": process}

// everywhere runs a test in this process and in one of its own, and on a cluster where that is asked for, on few and on
// many shards.
func everywhere(t *testing.T, f func(t *testing.T, newHost newHost, shards int)) {
	t.Helper()
	for name, newHost := range hosts {
		t.Run(name, func(t *testing.T) {
			eachShards(t, func(t *testing.T, shards int) { f(t, newHost, shards) })
		})
	}
}

// patience is when something that should have happened long ago counts as a failure.
const patience = time.Minute

// await asks until done says so: for what tells nobody when it happens.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	awaitWithin(t, patience, what, done)
}

func awaitWithin(t testing.TB, patience time.Duration, what string, done func() bool) {
	t.Helper()
	over := time.NewTimer(patience)
	defer over.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-over.C:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
