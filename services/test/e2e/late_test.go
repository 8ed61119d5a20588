package e2e

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// lateHost is parts of which the first ingress reaches the engine over a network that can stop.
type lateHost struct {
	*apartHost
	network *bustest.Network
}

func newLate(dir string, shards int) *lateHost {
	h := &apartHost{
		dir: dir, shards: shards, client: newClient(), parts: map[string]*part{},
		counts: []kind{{"quota", 1}, {"dispatcher", 1}, {"ingress", 2}},
	}
	return &lateHost{apartHost: h}
}

func (h *lateHost) start(t *testing.T) started {
	t.Helper()
	h.engine = h.run(t, "engine", 0)
	h.network = bustest.NewNetwork(func() (net.Conn, error) {
		address, err := os.ReadFile(filepath.Join(h.dir, "address"))
		if err != nil {
			return nil, err
		}
		return new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(strings.TrimSpace(string(address)), "nats://"))
	})
	// What the part looks for in the data directory, with the network's address.
	dir := t.TempDir()
	err := os.CopyFS(filepath.Join(dir, "keys"), os.DirFS(filepath.Join(h.dir, "keys")))
	if err == nil {
		err = os.Chmod(filepath.Join(dir, "keys", "engine.nk"), 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "address"), []byte("nats://"+h.network.Listen(t)+"\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	h.behind = map[string]string{"ingress-0": dir}
	for _, k := range h.counts {
		for number := range k.count {
			h.begin(t, k.role, number)
		}
	}
	return started{url: h.parts["ingress-0"].url, client: h.client}
}

func launchLate(t *testing.T) (*trunkline, *lateHost) {
	t.Helper()
	var h *lateHost
	s := launch(t, func(dir string, shards int) host { h = newLate(dir, shards); return h }, 1)
	return s, h
}

// A network stops, the ingress finds another way, and what lay in the buffers arrives when the engine has forgotten the
// ids: nothing is stored twice, and nothing counts twice.
func TestApart_LateCopy(t *testing.T) {
	for name, keyed := range map[string]string{"plain": "", "under a key": "order-1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it waits for the engine to forget
			s, h := launchLate(t)
			a := s.api(s.account("shop", limited))
			_, _ = a.post("", sms{number(0), text("first", 0)}) // so that all is known that is asked for once
			late := h.network.StopAt("sms.enqueue.")
			var all []sms
			for i := range 20 {
				all = append(all, sms{number(i), text("late", i)})
			}
			answered := make(chan answer, 1)
			go func() {
				got, err := a.post(keyed, all...)
				if err != nil {
					t.Error(err)
				}
				answered <- got
			}()
			late.Await(t, "sms.enqueue.")
			late.Cut()
			if got := <-answered; got.status != http.StatusOK {
				t.Fatalf("got %v", got)
			}
			until(t, time.Now().Add(36*time.Second))
			late.Arrive()
			// Behind what has arrived.
			if got, err := a.post("", sms{number(1), text("last", 1)}); err != nil || got.status != http.StatusOK {
				t.Fatalf("got %v, %v", got, err)
			}
			if got := len(s.enqueued("shop")); got != 22 {
				t.Errorf("got %d messages stored, want 22", got)
			}
			if got := s.shownUsed("shop"); got != 22 {
				t.Errorf("got %d used, want 22", got)
			}
		})
	}
}

// Messages arrive when their grant has ended and others have its room: the limit holds.
func TestApart_LateForItsGrant(t *testing.T) {
	t.Parallel()
	s, h := launchLate(t)
	token := s.account("shop", limited)
	all := func(sender string) (all []sms) {
		for i := range 100 {
			all = append(all, sms{number(i), text(sender, i)})
		}
		return all
	}
	late := h.network.StopAt("sms.enqueue.")
	go func() { _, _ = s.api(token).post("", all("late")...) }() // which is told nothing, or that nothing is known
	late.Await(t, "sms.enqueue.")
	until(t, time.Now().Add(65*time.Second))
	testkit.Eventually(t, "the grant has ended", func() bool { return s.shownUsed("shop") == 0 })
	other := api{t.Context(), h.client, h.parts["ingress-1"].url + "/api/" + token}
	if got, err := other.post("", all("other")...); err != nil || got.status != http.StatusOK {
		t.Fatalf("others: got %v, %v", got, err)
	}
	late.Arrive()
	testkit.Eventually(t, "the ingress that was cut off accepts nothing more", func() bool {
		got, err := s.api(token).post("", sms{number(0), text("behind", 0)})
		return err == nil && got.status == http.StatusTooManyRequests
	})
	if got := len(s.enqueued("shop")); got != 100 {
		t.Errorf("got %d messages stored, the limit is 100", got)
	}
	if got := s.shownUsed("shop"); got != 100 {
		t.Errorf("got %d used, want 100", got)
	}
}
