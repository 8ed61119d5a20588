package dispatcher

import (
	"errors"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/service"
)

// A damaged message is told of once, and what is remembered of that is bounded.
func TestUnreadable_Bounded(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	s := &shard{Dispatcher: &Dispatcher{deps: Deps{Deps: service.Deps{Log: zap.New(core)}}}}
	damaged := errors.New("damaged")
	for range 2 {
		for seq := range uint64(mostSaid) {
			s.say(seq, 1, damaged)
		}
	}
	if got := logs.Len(); got != mostSaid {
		t.Errorf("got %d lines, want %d", got, mostSaid)
	}
	for seq := range uint64(3 * mostSaid) {
		s.say(mostSaid+seq, 1, damaged)
		if got := len(s.unreadable.said); got > mostSaid {
			t.Fatalf("%d are remembered, want at most %d", got, mostSaid)
		}
	}
}
