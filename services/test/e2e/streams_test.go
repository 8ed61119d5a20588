package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// enqueued reads the ids of all messages of an account out of the stream, in its order.
func (s *trunkline) enqueued(name string) (ids []string) {
	s.Helper()
	account := streams.AccountIDOf(name)
	shard := s.shards.Of(account)
	s.withBus(func(b *bus.Bus) {
		stream := streams.EnqueueStream(shard)
		consumer, err := b.JS.CreateConsumer(s.Context(), stream, jetstream.ConsumerConfig{
			FilterSubject: strings.TrimSuffix(streams.EnqueuedSubjects(shard), ">") + account.String() + ".>",
			AckPolicy:     jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
		})
		if err != nil {
			s.Fatal(err)
		}
		defer func() { _ = b.JS.DeleteConsumer(s.Context(), stream, consumer.CachedInfo().Name) }()
		over := time.Now().Add(testkit.Patience)
		for left := int(consumer.CachedInfo().NumPending); left > 0; {
			batch, err := consumer.Fetch(min(left, 500), jetstream.FetchMaxWait(testkit.Patience))
			if err != nil {
				s.Fatal(err)
			}
			before := left
			for m := range batch.Messages() {
				e, err := event.Decode[event.Enqueued](m.Data())
				if err != nil {
					s.Fatal(err)
				}
				ids = append(ids, e.ID.String())
				left--
			}
			// The consumer's node may not be known everywhere yet.
			if err := batch.Error(); left == before && (!errors.Is(err, nats.ErrNoResponders) || time.Now().After(over)) {
				s.Fatalf("read what is stored of %s: %d are missing: %v", name, left, err)
			}
		}
	})
	return ids
}

// list asks the dispatcher for an account's messages in some states.
func (s *trunkline) list(name string, states ...streams.State) []request.Message {
	s.Helper()
	listed, err := s.tryList(name, states...)
	if err != nil {
		s.Fatal(err)
	}
	return listed
}

// tryList is list for where a dispatcher may be busy.
func (s *trunkline) tryList(name string, states ...streams.State) (listed []request.Message, err error) {
	s.Helper()
	account := streams.AccountIDOf(name)
	s.withBus(func(b *bus.Bus) {
		var answer request.Listed
		answer, err = bus.Call[request.Listed](s.Context(), b, request.DispatcherList(s.shards.Of(account)),
			request.List{Account: account, States: states, Limit: 1000})
		listed = answer.Messages
	})
	return listed, err
}

// used asks quota how much of its limit an account has used.
func (s *trunkline) used(name string) (used int64) {
	s.Helper()
	s.withBus(func(b *bus.Bus) {
		usage, err := bus.Call[request.Usage](s.Context(), b, request.QuotaUsage, request.UsageOf{Account: streams.AccountIDOf(name)})
		if err != nil {
			s.Fatal(err)
		}
		used = usage.Used
	})
	return used
}

// projectionNames are those that the commands know them by.
func (s *trunkline) projectionNames() (names []string) {
	for _, file := range s.projections() {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".db"))
	}
	return names
}

// verify lets the server compare every projection with a rebuilt one.
func (s *trunkline) verify() {
	s.Helper()
	s.withBus(func(b *bus.Bus) {
		for _, name := range s.projectionNames() {
			verified, err := bus.Call[request.Verified](s.Context(), b, request.ProjectionVerify(name), request.Verify{})
			if err != nil || verified.Difference != "" {
				s.Errorf("verify %s: got %q, %v", name, verified.Difference, err)
			}
		}
	})
}

// rebuild lets the server rebuild every projection.
func (s *trunkline) rebuild() {
	s.Helper()
	s.withBus(func(b *bus.Bus) {
		for _, name := range s.projectionNames() {
			if _, err := bus.Call[request.Rebuilt](s.Context(), b, request.ProjectionRebuild(name), request.Rebuild{}); err != nil {
				s.Errorf("rebuild %s: %v", name, err)
			}
		}
	})
}

// dumps gives the content of every projection.
func (s *trunkline) dumps() map[string]string {
	s.Helper()
	all := map[string]string{}
	dir := s.TempDir()
	s.withBus(func(b *bus.Bus) {
		for _, name := range s.projectionNames() {
			file := filepath.Join(dir, name)
			if _, err := bus.Call[request.Dumped](s.Context(), b, request.ProjectionDump(name), request.Dump{File: file}); err != nil {
				s.Fatalf("dump %s: %v", name, err)
			}
			dump, err := os.ReadFile(filepath.Clean(file))
			if err != nil {
				s.Fatal(err)
			}
			all[name] = string(dump)
		}
	})
	return all
}

// dropProjections deletes the files of all projections. The server must not run.
func (s *trunkline) dropProjections() {
	s.Helper()
	if len(s.projections()) == 0 {
		s.Fatal("there is no projection to drop")
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "projections")); err != nil {
		s.Fatal(err)
	}
}

// command runs a command against the server, which has to succeed, and gives what it prints.
func (s *trunkline) command(args ...string) string {
	s.Helper()
	cmd := command(s, append(args, s.access()...)...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil || problems.Len() > 0 {
		s.Fatalf("trunkline %s: %v: %s", strings.Join(args, " "), err, problems.String())
	}
	return out.String()
}

// consumers is how many consumers the ENQUEUE streams have.
func (s *trunkline) consumers() (n int) {
	s.Helper()
	s.withBus(func(b *bus.Bus) {
		for _, shard := range s.shards.All() {
			stream, err := b.JS.Stream(s.Context(), streams.EnqueueStream(shard))
			if err != nil {
				s.Fatal(err)
			}
			n += stream.CachedInfo().State.Consumers
		}
	})
	return n
}

// knows says whether a phone of that name has called.
func (s *trunkline) knows(name, device string) (known bool) {
	s.Helper()
	s.withBus(func(b *bus.Bus) {
		book, err := accounts.Open(s.Context(), b, time.Now)
		if err != nil {
			s.Fatal(err)
		}
		devices, err := book.Devices(s.Context(), streams.AccountIDOf(name))
		if err != nil {
			s.Fatal(err)
		}
		known = slices.ContainsFunc(devices, func(d streams.Device) bool { return d.Name == device })
	})
	return known
}

// awaitDrained waits until all messages of an account have been handed out and reported and none waits, and gives how
// many there are. If that does not come, it shows what became of those that are left.
func (s *trunkline) awaitDrained(j *journal, name string, within time.Duration) int {
	s.Helper()
	stored := s.enqueued(name)
	drained := false
	defer func() {
		if drained {
			return
		}
		open, left := j.open(stored), s.list(name, streams.Pending, streams.Leased)
		s.Logf("%s: %d of %d stored are not reported, %d wait or are leased", name, len(open), len(stored), len(left))
		for _, m := range left {
			open = append(open, m.ID.String())
		}
		for _, id := range open[:min(len(open), 5)] {
			s.Log(s.command("message", "show", id))
		}
	}()
	testkit.EventuallyWithin(s.T, within, "phones drain the queue of "+name, func() bool {
		if len(j.open(stored)) > 0 {
			return false
		}
		left, err := s.tryList(name, streams.Pending, streams.Leased)
		return err == nil && len(left) == 0
	})
	drained = true
	return len(stored)
}
