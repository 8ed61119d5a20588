package fleet

import (
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var account = &streams.Account{ID: streams.AccountIDOf("acme"), Name: "acme"}

var deployment = streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}

// newFleet runs a Fleet on a real engine.
func newFleet(t testing.TB) *Fleet {
	t.Helper()
	b := bustest.New(t)
	if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
		t.Fatal(err)
	}
	return newFleetOn(t, b)
}

// newFleetOn runs a Fleet of another ingress beside others on their engine.
func newFleetOn(t testing.TB, b *bus.Bus) *Fleet {
	t.Helper()
	f := New(Options{Bus: b, Log: zap.NewNop(), Now: time.Now})
	bustest.Run(t, f.Run)
	return f
}
