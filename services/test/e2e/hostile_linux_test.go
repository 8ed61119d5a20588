package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
)

var (
	hostileFor  = flag.Duration("hostile", 12*time.Second, "how long attackers are at work beside the good account")
	hostileOnly = flag.String("only", "", "names of the attackers, with commas; empty: all")
)

const (
	// hostileMemory is the most that the server may take, in MiB, with the pages of files that it reads.
	hostileMemory = 500
	// shortMemory is the same in a short run, while other tests keep the machine busy and its garbage lies about.
	shortMemory = 800
	// hostileFactor is what the slowest requests of the good account may lose.
	hostileFactor = 3
	// hostileLong is from when on it fails the test if the good account is refused anything or slower than that. In a
	// shorter run, beside other tests, that says more about the machine than about the server.
	hostileLong = time.Minute
)

// Beside a tenant and strangers who do all at once what they should not, nothing of another account is lost or doubled,
// and the server's memory stays within bounds; in a long run that account's posts, pulls, reports and sign-ins all succeed
// too, and in time.
func TestHostile(t *testing.T) {
	all := attackersNamed(t, *hostileOnly)
	// As it is run by others: at debug the log alone would be an attack.
	s, pid := launchMeasured(t, func(dir string, shards int) host { return &processHost{dir: dir, shards: shards, level: "info"} })
	aim := s.aim()
	good := newNeighbour(s, aim.Victim)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	working := good.work(ctx)

	begun, cpu := time.Now(), processorTime(t, pid)
	quiet := watch(t, pid, min(*hostileFor/5, time.Minute))
	calm, calmFor := processorTime(t, pid)-cpu, time.Since(begun)
	good.begin(hostilePhase)
	begun, cpu = time.Now(), processorTime(t, pid)
	attack := startAttack(t, aim, all, *hostileFor)
	hostile := watch(t, pid, *hostileFor/2)
	good.changePassword() // from now on nobody knows by heart that it is right
	hostile = hostile.and(watch(t, pid, *hostileFor-*hostileFor/2))
	busy, busyFor := processorTime(t, pid)-cpu, time.Since(begun)
	good.begin(afterwards)
	said := attack()
	good.rest()
	stop()
	working()

	t.Logf("attackers, for %v on %s:\n%s", *hostileFor, load(t), said)
	t.Logf("the good account:\n%s", good.table())
	t.Logf("the server took %s; before, %s", hostile, quiet)
	t.Logf("it took %v of a processor in %v; before, %v in %v", busy, busyFor.Round(time.Second), calm, calmFor.Round(time.Second))
	c := good.journal.check(t)
	if c.Accepted == 0 || c.Delivered != c.Accepted || c.Unknown+c.Lost+c.Doubled+c.Again > 0 {
		t.Errorf("got %+v, want every message delivered once", c)
	}
	complain, most := t.Errorf, hostileMemory
	if *hostileFor < hostileLong {
		complain, most = t.Logf, shortMemory
	}
	if hostile.all > most {
		t.Errorf("the server took %s, want at most %d MiB", hostile, most)
	}
	for what, n := range good.trouble {
		complain("%s: %d times", what, n)
	}
	for _, a := range attackers() {
		if slices.Contains(all, a.name) && said[a.name].mistaken(a.once) {
			complain("%s was told that it is wrong, and never %s", a.name, a.once)
		}
	}
	for _, slow := range good.slower(hostileFactor) {
		complain("%s", slow)
	}
}

// attackersNamed gives the names of those that are asked for.
func attackersNamed(t *testing.T, only string) []string {
	t.Helper()
	var all []string
	for _, a := range attackers() {
		all = append(all, a.name)
	}
	if only == "" {
		return all
	}
	asked := strings.Split(only, ",")
	for _, name := range asked {
		if !slices.Contains(all, name) {
			t.Fatalf("there is no attacker %q, only %s", name, strings.Join(all, ","))
		}
	}
	return asked
}

// aim makes the accounts of the attackers, and of the one that they want to harm.
func (s *trunkline) aim() target {
	s.Helper()
	_, token := s.loginOf("hostile")
	if *hostileFor >= hostileLong {
		// What "account create" gives. In a short run it has none, so that all attacks get through.
		s.withAccounts(func(book *accounts.Accounts) (uint64, error) {
			rate := accounts.DefaultPlan().Rate
			return book.Set(s.Context(), "hostile", accounts.Change{Rate: &rate})
		})
	}
	return target{
		URL: s.url, Account: streams.AccountIDOf("hostile"), Token: token, Login: "hostile", Password: "correct horse hostile",
		Phones: s.account("hostile-phones", nil), Victim: "good",
	}
}

// processorTime is what a process has had of processors.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int64 // a hundred a second
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// usage is the most memory that was seen, in MiB.
type usage struct{ all, anonymous int }

func (u usage) String() string {
	return fmt.Sprintf("%d MiB at most, %d without its files", u.all, u.anonymous)
}

func (u usage) and(v usage) usage { return usage{max(u.all, v.all), max(u.anonymous, v.anonymous)} }

// watch looks for some time at what a process takes.
func watch(t *testing.T, pid int, d time.Duration) (most usage) {
	t.Helper()
	over := time.NewTimer(d)
	defer over.Stop()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-over.C:
			return most
		case <-again.C:
			most = most.and(usage{memory(t, pid, "VmRSS"), memory(t, pid, "RssAnon")})
		}
	}
}
