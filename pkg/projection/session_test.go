package projection

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bustest"
)

// A server that lost the pull sends no heartbeats for it.
func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.New(t)
		_, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"ORDERS.>"}})
		if err != nil {
			t.Fatal(err)
		}
		r := newReader(b, zap.NewNop(), Source{Stream: "ORDERS"}, newQueue(), 10, cursor{}, 0)
		s, err := r.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.end()
		s.open = true // as if it had pulled
		if err := s.run(t.Context()); !errors.Is(err, errSilent) {
			t.Errorf("got %v, want %v", err, errSilent)
		}
	})
}
