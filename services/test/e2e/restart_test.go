package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams"
)

// putBackOlder replaces one projection by a copy of an earlier day, each time another one. The first time it makes the
// copies. The server must not run.
func (s *trunkline) putBackOlder() {
	s.Helper()
	live, older := filepath.Join(s.dir, "projections"), filepath.Join(s.dir, "older")
	if _, err := os.Stat(older); err != nil {
		if err := os.CopyFS(older, os.DirFS(live)); err != nil {
			s.Fatal(err)
		}
		return
	}
	copies, err := filepath.Glob(filepath.Join(older, "*.db"))
	if err != nil {
		s.Fatal(err)
	}
	if len(copies) == 0 {
		return // each had its turn
	}
	if err := os.Rename(copies[0], filepath.Join(live, filepath.Base(copies[0]))); err != nil {
		s.Fatal(err)
	}
}

// dropConsumers lets a phone of each account create its consumer again, which no restart outlives, and deletes them all.
func (b *burst) dropConsumers() {
	b.Helper()
	for _, token := range b.tokens {
		a, asked := b.api(token), time.Now()
		page, err := a.pull("first", 3, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.journal.pulled("first", asked, page)
		if len(page) > 0 {
			if _, err := a.report("first", success, page); err != nil {
				b.Fatal(err)
			}
			b.journal.reported(page)
		}
	}
	deleted := 0
	b.withBus(func(bus *bus.Bus) {
		for _, shard := range b.shards.All() {
			stream, err := bus.JS.Stream(b.Context(), streams.EnqueueStream(shard))
			if err != nil {
				b.Fatal(err)
			}
			names := stream.ConsumerNames(b.Context())
			for name := range names.Name() {
				if !strings.Contains(name, "_any_") { // a projection's reader
					continue
				}
				if err := stream.DeleteConsumer(b.Context(), name); err != nil {
					b.Fatal(err)
				}
				deleted++
			}
			if err := names.Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Logf("%d consumers deleted", deleted)
}
