package e2e

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/trunkline-sms/trunkline/services/test/lossyfs"
)

// What a request costs of the disk: how often the server waits for it.
func TestCost_Syncs(t *testing.T) {
	disk := lossyfs.New(lossyfs.Journaled)
	s, _ := plug(t, disk, 1, rand.New(rand.NewPCG(1, 2)))
	s.Start()
	synced := func() float64 { return float64(disk.Synced()) }
	s.work(5, 20, synced) // what is done once
	for _, c := range []cost{
		{size: 1, pages: 100, post: 1.2, pull: 1.2, report: 1.2},
		{size: 200, pages: 20, post: 9, pull: 1.2, report: 1.2}, // an atomic batch of the engine takes 8
	} {
		post, pull, report := s.work(c.pages, c.size, synced)
		c.check(t, "syncs", post, pull, report)
	}
	// Many senders share them.
	const senders, posts = 64, 20
	before := synced()
	var wg sync.WaitGroup
	for range senders {
		c, posting := s.connect(), s.posting(1)
		wg.Go(func() {
			for range posts {
				if _, err := c.do(posting); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	each := (synced() - before) / (senders * posts)
	t.Logf("syncs of a message of one of %d senders: %.2f", senders, each)
	if each > 0.5 {
		t.Errorf("a message of one of %d senders made %.2f syncs, want at most 0.5", senders, each)
	}
}
