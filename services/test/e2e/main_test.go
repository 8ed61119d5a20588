// Package e2e shows the whole product at work: senders and phones speak HTTP to a running Trunkline, which is stopped,
// killed and bereft of its projections, and nothing that it answered may get lost.
package e2e

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

var longFlag = flag.Bool("long", false, "take the numbers of the long form: as much as is promised")

// many gives a number that a run beside others can do with, or in the long form the one that is promised.
func many(short, long int) int {
	if *longFlag {
		return long
	}
	return short
}

var clusterFlag = flag.Bool("cluster", false, "run the tests on a cluster that would else run everywhere")

// clustered runs the parts over a cluster, where that can be done.
var clustered newHost

func TestMain(m *testing.M) {
	bePart()
	beHostile()
	flag.Parse()
	most := besides
	if *clusterFlag && clustered != nil {
		hosts = map[string]newHost{"cluster": clustered}
		most = 1 // a cluster is nine processes
	}
	runBeside(most)
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

// besides is how many tests run at a time. Most wait longer than they compute: for processes, leases and claims.
//
// Those that call t.Parallel run when all others are over. What measures memory, time or the disk, fills a disk, lives in
// simulated time or sets variables of this process does not call it, and so has the machine for itself.
const besides = 4

// runBeside lets so many tests run at a time, unless the command line says how many.
func runBeside(most int) {
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if said {
		return
	}
	if err := flag.Set("test.parallel", fmt.Sprint(most)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// eachShards runs a test on a deployment of one shard and on one of several, beside other tests. The caller has not
// called t.Parallel.
func eachShards(t *testing.T, f func(t *testing.T, shards int)) {
	t.Helper()
	t.Parallel()
	eachShardsAlone(t, func(t *testing.T, shards int) {
		t.Parallel()
		f(t, shards)
	})
}

// eachShardsAlone does so while no other test runs: for what is measured, and for simulated time.
func eachShardsAlone(t *testing.T, f func(t *testing.T, shards int)) {
	t.Helper()
	for _, shards := range []int{1, 4} {
		t.Run(fmt.Sprintf("shards=%d", shards), func(t *testing.T) { f(t, shards) })
	}
}

// hosts are where everywhere runs tests.
var hosts = map[string]newHost{"inside": inside, "process": process}

// everywhere runs a test in this process and in one of its own, and on a cluster where that is asked for, on few and on
// many shards, beside other tests. The caller has not called t.Parallel.
func everywhere(t *testing.T, f func(t *testing.T, newHost newHost, shards int)) {
	t.Helper()
	t.Parallel()
	for name, newHost := range hosts {
		t.Run(name, func(t *testing.T) {
			eachShards(t, func(t *testing.T, shards int) { f(t, newHost, shards) })
		})
	}
}
