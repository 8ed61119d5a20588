package dispatcher

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/service"
)

// A damaged message is logged once, and how many are remembered is bounded.
func TestUnreadable_Bounded(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	now := time.Now()
	s := &bodies{shard: &shard{deps: Deps{Deps: service.Deps{Log: zap.New(core), Now: func() time.Time { return now }}}}}
	damaged := errors.New("damaged")
	for range 2 {
		for seq := range uint64(mostUnreadable) {
			s.logDamaged(seq, 1, damaged)
		}
	}
	if got := logs.Len(); got != mostUnreadable {
		t.Errorf("got %d lines, want %d", got, mostUnreadable)
	}
	for seq := range uint64(2 * mostUnreadable) {
		s.logDamaged(mostUnreadable+seq, 1, damaged)
		if got := len(s.unreadable.tried); got > mostUnreadable {
			t.Fatalf("%d are remembered, want at most %d", got, mostUnreadable)
		}
	}
}

// What could not be read is passed over, and a few are tried again after a minute: a disk may have been repaired.
func TestUnreadable_TriedAgain(t *testing.T) {
	var u unreadable
	now := time.Now()
	for seq := range uint64(100) {
		u.note(seq, now)
	}
	read := func(after time.Duration) (all []uint64) {
		passed := u.passed(now.Add(after))
		for seq := range uint64(101) {
			if !passed(seq) {
				all = append(all, seq)
			}
		}
		return all
	}
	if got := read(retryUnreadable - time.Second); len(got) != 1 || got[0] != 100 {
		t.Errorf("within a minute %v are read", got)
	}
	if got := read(retryUnreadable); len(got) != readers+1 || got[readers] != 100 {
		t.Errorf("after a minute %v are read", got)
	}
	u.forget(7)
	if got := read(0); len(got) != 2 || got[0] != 7 {
		t.Errorf("after one was read %v are read", got)
	}
}
