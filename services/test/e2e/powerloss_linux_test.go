package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/pkg/testkit/testnote"
	"github.com/trunkline-sms/trunkline/services/test/lossyfs"
	"github.com/trunkline-sms/trunkline/streams"
)

// poweredHost runs Trunkline in a process of its own, on a disk and a machine that lose their power.
type poweredHost struct {
	processHost
	disk    *lossyfs.Disk
	mount   string
	env     []string
	draw    *rand.Rand
	least   int  // changes of the disk before the power fails in a burst
	atStart bool // it may fail while the server starts

	power sync.Mutex // held while a process starts
	boots int
	toll  toll
}

// toll is what power cuts took.
type toll struct {
	Cuts, AtStart int // all; of them while the server started
	Refused       int // starts after a cut that failed
	Folded        int // projections thrown away
	lossyfs.Lost      // of the disk
}

// plug gives a Trunkline that does not run yet, on an empty disk.
func plug(t *testing.T, disk *lossyfs.Disk, shards int, draw *rand.Rand, env ...string) (*trunkline, *poweredHost) {
	t.Helper()
	mount := t.TempDir()
	dir := filepath.Join(mount, "data")
	h := &poweredHost{processHost: processHost{dir: dir, shards: shards}, disk: disk, mount: mount, env: env, draw: draw}
	if _, err := exec.LookPath("unshare"); err != nil {
		skipPowerLoss(t, err)
	}
	if err := disk.Mount(mount); err != nil {
		skipPowerLoss(t, err)
	}
	s := &trunkline{T: t, host: h, dir: dir, shards: streams.Shards(shards)}
	t.Cleanup(func() {
		disk.CutAfter(0, nil)
		if s.running {
			s.Kill()
		}
		disk.Cut()
		disk.Unplug()
		if err := disk.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return s, h
}

func skipPowerLoss(t *testing.T, why error) {
	t.Helper()
	testnote.Skip(t, "power loss takes root, /dev/fuse and unshare: "+why.Error())
}

// fail ends the machine: the server dies, and nobody sees an error of the disk.
func (h *poweredHost) fail() {
	h.power.Lock()
	defer h.power.Unlock()
	_ = h.cmd.Process.Kill()
	h.disk.Unplug()
}

// soon lets the power fail at one of the next changes of the disk after some, rather soon.
func (h *poweredHost) soon(least, most int) {
	h.disk.CutAfter(1+least+h.draw.IntN(1+h.draw.IntN(most)), h.fail)
}

// boot starts the server after its machine has booted.
func (h *poweredHost) boot(t *testing.T) (started, error) {
	t.Helper()
	h.boots++
	id := filepath.Join(t.TempDir(), "boot_id")
	if err := os.WriteFile(id, fmt.Appendf(nil, "00000000-0000-4000-8000-%012d\n", h.boots), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := h.serve(t)
	const script = `mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", script, id}, serve.Args...)...)
	cmd.Dir, cmd.Env = serve.Dir, append(serve.Env, h.env...)
	h.power.Lock()
	out := h.begin(t, cmd)
	h.power.Unlock()
	begun, err := h.ready(out)
	h.folded(t)
	return begun, err
}

// folded counts the projections that the last start threw away.
func (h *poweredHost) folded(t *testing.T) {
	t.Helper()
	log, err := os.ReadFile(h.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	h.toll.Folded += strings.Count(string(log), "it was open when the machine went down")
}

// restart starts the machine again after a cut. The error is the server's refusal.
func (h *poweredHost) restart(t *testing.T) (started, error) {
	t.Helper()
	for {
		if h.disk.Off() {
			h.toll.Cuts++
			if err := h.disk.Unmount(); err != nil {
				t.Fatal(err)
			}
			h.toll.Add(h.disk.Restart(h.draw))
			if err := h.disk.Mount(h.mount); err != nil {
				t.Fatal(err)
			}
			if h.atStart && h.draw.IntN(3) == 0 {
				h.soon(0, 200) // perhaps later than the start, then in the burst
			}
		}
		begun, err := h.boot(t)
		if err == nil {
			return begun, nil
		}
		if !h.disk.Off() {
			h.toll.Refused++
			return begun, fmt.Errorf("%w; its log is %s", err, h.log.Name())
		}
		h.toll.AtStart++
	}
}

func (h *poweredHost) start(t *testing.T) started {
	t.Helper()
	begun, err := h.restart(t)
	if err != nil {
		t.Fatalf("the server did not start after a power cut: %v", err)
	}
	return begun
}

// suffer lets senders and phones work until the power fails, and the machine start again, as often as there are rounds.
// It returns the server's refusal to start.
func (b *burst) suffer(h *poweredHost) error {
	b.Helper()
	for range roundsOr(3) {
		h.soon(h.least, 4000)
		ctx, stop := context.WithTimeout(b.Context(), testkit.Patience)
		b.run(ctx)()
		late := ctx.Err() != nil
		stop()
		if late {
			b.Fatalf("the power did not fail; the log is %s", h.log.Name())
		}
		b.Kill()
		begun, err := h.restart(b.T)
		if err != nil {
			return err
		}
		b.running, b.url, b.client = true, begun.url, begun.client
		for i, name := range b.accounts {
			got, err := b.api(b.tokens[i]).do(http.MethodPost, "/queue", "[]")
			if err == nil && got.status == http.StatusUnauthorized {
				return fmt.Errorf("%s is gone; the log is %s", name, h.log.Name())
			}
		}
	}
	h.disk.CutAfter(0, nil)
	return nil
}

// What was answered 2xx is delivered, once, whenever the power fails, on disks that keep the name of a file that was
// synced, as all that people use on Linux do.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	for name, names := range map[string]lossyfs.Names{"names in a journal": lossyfs.Journaled, "names with the file": lossyfs.WithFile} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := chance(t)
			s, h := plug(t, lossyfs.New(names), 2, rand.New(rand.NewPCG(seed, 1<<33)))
			s.Start()
			h.atStart = true
			b := newBurst(s, seed)
			if err := b.suffer(h); err != nil {
				t.Fatalf("the server did not start after a power cut: %v", err)
			}
			b.repeatUnanswered()
			b.drain()

			c := b.journal.check(t)
			if c.Lost != 0 || c.Doubled != 0 || c.Accepted == 0 {
				t.Errorf("got %+v, want none lost, none doubled", c)
			}
			stored := 0
			for _, name := range b.accounts {
				stored += len(b.enqueued(name))
			}
			if want := c.Accepted + c.Stored; stored != want {
				t.Errorf("got %d messages stored, want the %d that were handed out", stored, want)
			}
			b.foldsAnew(h)
			testnote.Count(t, "%+v, %+v", h.toll, c)
		})
	}
}

// foldsAnew lets the power fail once more, and looks whether projections are made again that equal those before.
func (b *burst) foldsAnew(h *poweredHost) {
	b.Helper()
	b.verify()
	live := b.dumps()
	h.atStart = false
	before := h.toll.Folded
	h.disk.Cut()
	h.fail()
	b.Kill()
	b.Start()
	if diff := cmp.Diff(live, b.dumps()); diff != "" {
		b.Errorf("dumps before and after a power cut (-before +after):\n%s", diff)
	}
	if got, want := h.toll.Folded-before, len(b.projections()); got != want {
		b.Errorf("got %d projections thrown away after a power cut, want all %d", got, want)
	}
}

// On a disk that keeps the names in a directory only if that was synced, the server starts and has its accounts. The
// engine does not sync the directories of its new files, so that messages are lost there: they are counted.
func TestPowerLoss_POSIX(t *testing.T) {
	t.Parallel()
	seed := chance(t)
	s, h := plug(t, lossyfs.New(lossyfs.WithDirectory), 2, rand.New(rand.NewPCG(seed, 1<<33)))
	s.Start()
	h.atStart = true
	b := newBurst(s, seed)
	if err := b.suffer(h); err != nil {
		t.Fatalf("the server did not start after a power cut: %v", err)
	}
	b.drain()
	testnote.Count(t, "%+v, %+v", h.toll, b.journal.count())
}

// A server whose first start is cut off by a power cut starts.
func TestPowerLoss_FirstStart(t *testing.T) {
	t.Parallel()
	for name, names := range map[string]lossyfs.Names{
		"names in a journal": lossyfs.Journaled, "names with the file": lossyfs.WithFile, "names with the directory": lossyfs.WithDirectory,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			draw := rand.New(rand.NewPCG(chance(t), 1<<34))
			for range roundsOr(3) {
				s, h := plug(t, lossyfs.New(names), 1, draw)
				h.atStart = true
				h.soon(0, 400)
				s.Start()
				h.atStart = false
				for h.disk.CutAfter(0, nil); h.disk.Off(); h.disk.CutAfter(0, nil) { // it failed once the server was there
					s.Kill()
					s.Start()
				}
				s.account("shop", nil)
				t.Logf("%+v", h.toll)
				s.Kill()
			}
		})
	}
}

// What a power cut takes without a sync is lost, so that the tests above can fail: on a disk that answers syncs of messages and
// does nothing, and as the setting says.
func TestPowerLoss_NotSynced(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]bool{"durability process": false, "disk lies": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := chance(t)
			disk := lossyfs.New(lossyfs.Journaled)
			env := "TRUNKLINE_ENGINE_DURABILITY=process"
			if lie {
				env = "TRUNKLINE_ENGINE_DURABILITY=sync"
			}
			s, h := plug(t, disk, 2, rand.New(rand.NewPCG(seed, 1<<33)), env)
			s.Start()
			b := newBurst(s, seed)
			disk.Sync()   // the accounts are old
			h.least = 500 // enough to lose
			if lie {
				disk.Ignored = func(path string) bool { return strings.HasSuffix(path, ".blk") }
			}
			if err := b.suffer(h); err != nil {
				t.Logf("the server refused to start: %v", err)
			} else {
				b.drain()
			}
			c := b.journal.count()
			t.Logf("%+v, %+v", h.toll, c)
			if c.Lost == 0 {
				t.Error("got nothing lost of what was not synced")
			}
		})
	}
}
