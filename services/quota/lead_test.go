package quota

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

func TestStandbyTakesOverAfterTheClaimLapsed(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a := w.start("a")
		s := w.startSender(1)
		w.await("a leader", w.granting)
		b := w.start("b")
		given, err := s.reserve(alice, 60, 100)
		if err != nil {
			t.Fatal(err)
		}
		died := time.Now()
		a.kill()
		if _, err := w.reserve(alice, 1, 100); !isCode(err, "no_responder") {
			t.Errorf("reserve without a leader: got %v, want no_responder", err)
		}
		w.await("the next leader", w.granting)
		if took := time.Since(died); took < streams.ClaimTTL-streams.ClaimTTL/4 || took > streams.ClaimTTL+5*time.Second {
			t.Errorf("takeover took %v, want about %v", took, streams.ClaimTTL)
		}
		w.mustUse(alice, 60)
		if _, err := w.reserve(alice, 41, 100); !fault.Is(err, fault.LimitExceeded) {
			t.Errorf("reserve beside a grant taken over: got %v, want limit_exceeded", err)
		}
		next := w.mustReserve(alice, 40, 100)
		if next.Leader <= given.Leader || next.ID == given.ID {
			t.Errorf("grant of the next leader: got %+v after %+v", next, given)
		}
		if err := s.store(given); err != nil {
			t.Fatal(err)
		}
		b.folded()
		w.mustUse(alice, 100)
		b.mustHaveOpen(1)
	})
}

func TestTakeoverAfterAStopIsQuick(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.start("a")
		w.await("a leader", w.granting)
		w.start("b")
		time.Sleep(time.Second)
		a.stop()
		w.mustBeTakenOver()
	})
}

// A renewal that nobody waited for, as a stop does not, is no reason to leave the
// claim to lapse.
func TestTakeoverAfterAStopDuringARenewalIsQuick(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.start("a")
		w.await("a leader", w.granting)
		w.start("b")
		w.renewed()
		a.stop()
		w.mustBeTakenOver()
	})
}

// A claim whose making was not answered is its maker's.
func TestClaimWhoseAnswerWasLost(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		token := []byte("token")
		q := New(DefaultConfig(), Deps{Deps: service.Deps{Bus: w.bus, Log: w.log(), Metrics: prometheus.NewRegistry(), Now: time.Now}, Shards: w.shards})
		q.claims = q.claimsIn(w.claims())
		if _, err := q.claims.Bucket.PutString(t.Context(), streams.QuotaClaim, "another's"); err != nil {
			t.Fatal(err)
		}
		if c, err := q.take(t.Context(), token); !errors.Is(err, kv.ErrClaimTaken) {
			t.Errorf("take another's: got %+v, %v, want that it is taken", c, err)
		}
		if err := q.claims.Bucket.Delete(t.Context(), streams.QuotaClaim); err != nil {
			t.Fatal(err)
		}
		created, err := q.claims.Bucket.Create(t.Context(), streams.QuotaClaim, token)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(streams.ClaimTTL / 2)
		c, err := q.take(t.Context(), token)
		entry, readErr := q.claims.Bucket.Get(t.Context(), streams.QuotaClaim)
		if readErr != nil {
			t.Fatal(readErr)
		}
		if err != nil || c.Created() != created || entry.Revision() <= created || time.Until(c.Until()) != q.claims.RelyFor() {
			t.Errorf("take one's own: got %+v, %v, want leader %d, renewed", c, err, created)
		}
	})
}

func TestLeaderFoldsPastABarrier(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 3)
		for _, name := range []string{"a", "b"} {
			i := w.start(name)
			w.await("a leader", w.granting)
			leader := w.mustReserve(alice, 1, 100).Leader
			for _, shard := range w.shards.All() {
				msg, err := w.bus.LastForSubject(t.Context(), streams.EnqueueStream(shard), streams.BarrierSubject(shard))
				if err != nil {
					t.Fatal(err)
				}
				barrier, err := event.Decode[event.Barrier](msg.Data)
				if err != nil || barrier.Claim != leader {
					t.Errorf("barrier of shard %v: got claim %d, %v, want %d", shard, barrier.Claim, err, leader)
				}
				if got := i.quota.file.Cursor(streams.EnqueueStream(shard)); got < msg.Sequence {
					t.Errorf("shard %v is granted when folded up to %d, want %d", shard, got, msg.Sequence)
				}
			}
			i.stop()
		}
	})
}

// An ingress may list a grant whose messages are stored and folded, because it
// does not know it yet.
func TestGrantTakenOverIsNotCountedTwice(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a := w.start("a")
		s := w.startSender(1)
		w.await("a leader", w.granting)
		w.publish(alice, 7, time.Now().UTC().Format(monthLayout), "")
		whole, err := s.reserve(alice, 1000, 2000)
		if err != nil {
			t.Fatal(err)
		}
		part, err := s.reserve(alice, 20, 2000)
		if err != nil {
			t.Fatal(err)
		}
		w.publish(alice, 1000, whole.Month, whole.ID)
		w.publish(alice, 5, part.Month, part.ID)
		a.folded()
		a.stop()
		// The same file: what is folded is not folded again.
		a = w.start("a")
		w.await("a leader", w.granting)
		w.mustUse(alice, 1027)
		a.mustHaveOpen(1)
		w.publish(alice, 15, part.Month, part.ID)
		a.folded()
		w.mustUse(alice, 1027)
		a.mustHaveOpen(0)
	})
}

func TestGrantReleasedDuringRecoveryIsNotTakenOver(t *testing.T) {
	l := newLedger(time.Now, 1, 10)
	l.begin(9, time.Now().Add(time.Hour))
	given := request.Grant{ID: "7-1", Account: alice, Month: "2026-11", Count: 5, Leader: 7}
	other := request.Grant{ID: "7-2", Account: alice, Month: "2026-11", Count: 3, Leader: 7}
	l.release(given)
	taken, _ := l.takeOver([]request.Grant{given, other, other})
	if len(taken) != 1 || taken[0] != other {
		t.Errorf("taken over: got %v, want only %v", taken, other)
	}
}

func TestSilentIngress(t *testing.T) {
	recovering := func(w *world) bool {
		_, err := w.reserve(alice, 1, 100)
		return isCode(err, "quota_recovering")
	}
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a := w.start("a")
		s, other := w.startSender(1), w.startSender(2)
		w.await("a leader", w.granting)
		w.start("b")
		if _, err := other.reserve(alice, 10, 100); err != nil {
			t.Fatal(err)
		}
		if _, err := s.reserve(alice, 60, 100); err != nil {
			t.Fatal(err)
		}
		time.Sleep(streams.ClaimTTL/4 + 100*time.Millisecond) // and not while they are renewed
		s.kill()
		a.stop()
		began := time.Now()
		w.await("recovery", func() bool { return recovering(w) })
		for time.Since(began) < request.GrantTTL-time.Second {
			if !recovering(w) {
				t.Fatalf("served %v after the takeover although an ingress is silent", time.Since(began))
			}
			time.Sleep(time.Second)
		}
		w.await("a leader", w.granting)
		if took := time.Since(began); took > request.GrantTTL+5*time.Second {
			t.Errorf("served after %v, want %v", took, request.GrantTTL)
		}
	})
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.start("a")
		s := w.startSender(1)
		w.await("a leader", w.granting)
		w.start("b")
		s.kill()
		// Its claim lapses, which does not mean that it has no publish left.
		time.Sleep(streams.ClaimTTL + 10*time.Second)
		a.stop()
		began := time.Now()
		w.await("recovery", func() bool { return recovering(w) })
		w.await("a leader", w.granting)
		if took := time.Since(began); took < 20*time.Second {
			t.Errorf("served after %v although an ingress was lost half a minute before", took)
		}
	})
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.start("a")
		s := w.startSender(1)
		w.await("a leader", w.granting)
		w.start("b")
		s.kill()
		a.stop()
		began := time.Now()
		w.await("recovery", func() bool { return recovering(w) })
		// It was found to be gone: an operator, or its next start, removes it.
		claims, err := w.bus.JS.KeyValue(t.Context(), streams.ClaimsBucket)
		if err != nil {
			t.Fatal(err)
		}
		if err := claims.Delete(t.Context(), streams.IngressClaim(1)); err != nil {
			t.Fatal(err)
		}
		w.await("a leader", w.granting)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("served after %v although the silent ingress was removed", took)
		}
	})
}

func TestIngressThatStoppedIsNotWaitedFor(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a := w.start("a")
		s := w.startSender(1)
		w.await("a leader", w.granting)
		w.start("b")
		time.Sleep(time.Second)
		s.stop()
		a.stop()
		w.mustBeTakenOver()
	})
}

func TestLeaderWithoutItsClaimStops(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start("a")
		w.await("a leader", w.granting)
		before := w.mustReserve(alice, 1, 100)
		if _, err := w.claims().PutString(t.Context(), streams.QuotaClaim, "another's"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(streams.ClaimTTL/4 + time.Second)
		if _, err := w.reserve(alice, 1, 100); !isCode(err, "no_responder") {
			t.Errorf("reserve after the claim was lost: got %v, want no_responder", err)
		}
		w.await("a leader", w.granting)
		if after := w.mustReserve(alice, 1, 100); after.Leader <= before.Leader {
			t.Errorf("leader: got %d after %d, want a higher one", after.Leader, before.Leader)
		}
	})
}

// A stop while neither the claim nor the network has come back is in order.
func TestStopAfterTheClaimLapsed(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var away atomic.Bool
		network := bustest.NewNetwork(func() (net.Conn, error) {
			if away.Load() {
				return nil, errors.New("no engine there")
			}
			return w.engine.InProcessConn()
		})
		a := w.startBy("a", network)
		w.await("a leader", w.granting)
		away.Store(true)
		network.Stop().Cut()
		time.Sleep(streams.ClaimTTL)
		a.stop()
	})
}

func TestNothingIsGrantedBeyondTheClaim(t *testing.T) {
	now := time.Now()
	l := newLedger(func() time.Time { return now }, 1, 10)
	l.begin(7, now.Add(time.Minute))
	ask := request.Reserve{Account: alice, Count: 1, Limit: 10}
	if _, err := l.reserve(ask); !isCode(err, "quota_recovering") {
		t.Errorf("before recovery: got %v, want quota_recovering", err)
	}
	l.openShard(0)
	now = now.Add(time.Minute - 1)
	if _, err := l.reserve(ask); err != nil {
		t.Errorf("within the claim: got %v, want a grant", err)
	}
	now = now.Add(1)
	if _, err := l.reserve(ask); !isCode(err, "quota_not_leading") {
		t.Errorf("beyond the claim: got %v, want quota_not_leading", err)
	}
	l.extend(now.Add(time.Minute))
	if _, err := l.reserve(ask); err != nil {
		t.Errorf("after a renewal: got %v, want a grant", err)
	}
}

// A stream that was lost leaves counts that are too low, until it is folded
// again.
func TestLeaderStepsBackWhenAStreamIsMadeAnew(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.start("a")
		w.await("a leader", w.granting)
		month := time.Now().UTC().Format(monthLayout)
		w.publish(alice, 3, month, "")
		before := w.mustReserve(alice, 1, 100)
		if err := w.bus.JS.DeleteStream(t.Context(), streams.EnqueueStream(0)); err != nil {
			t.Fatal(err)
		}
		d := streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}
		if err := streams.Ensure(t.Context(), w.bus.JS, d, true); err != nil {
			t.Fatal(err)
		}
		w.publish(alice, 2, month, "")
		w.await("the next leader", func() bool {
			given, err := w.reserve(alice, 1, 100)
			return err == nil && given.Leader > before.Leader
		})
		w.mustUse(alice, 3)
	})
}
