package e2e

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/streams"
)

// Streams that began on one node are moved to three while they are used, and then any node may go.
func TestCluster_Replicas(t *testing.T) {
	t.Parallel()
	h := newCluster("", 1, kind{"quota", 1}, kind{"dispatcher", 1}, kind{"ingress", 1})
	h.replicas = 1
	s := launch(t, func(dir string, _ int) host { h.dir = dir; return h }, 1)
	a := s.api(s.account("shop", func(p *streams.Plan) {
		p.Lease, p.Attempts = 5*time.Second, 100 // a page that a killed node keeps from its phone comes again
	}))
	a.queue(t, "before", 20)
	h.apply(t, "--replicas", "3")
	c := &chaos{fleet: &fleet{trunkline: s}, host: h}
	c.whole()
	a.queue(t, "after", 20)
	h.nodes[0].end(t, syscall.SIGKILL)
	got := map[string]bool{}
	testkit.Eventually(t, "all is handed out without a node", func() bool {
		page, err := a.pull("phone", 40, 0)
		for _, m := range page {
			got[m.Text] = true
		}
		return err == nil && len(got) == 40
	})
	testkit.Eventually(t, "more is accepted without a node", func() bool {
		answer, err := a.post("one more", sms{number(41), text("more", 41)})
		return err == nil && answer.status == http.StatusOK
	})
	h.startNode(t, 0)
	c.whole()
	if out := s.command("stream", "apply", "--dry-run", "--json"); out != "[]\n" {
		t.Errorf("got %s, want nothing to be done", out)
	}
}
