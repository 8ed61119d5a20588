package dispatcher

import (
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// A consumer that was moved to another node can give a message twice: a page has it once.
func TestPageHasAMessageOnce(t *testing.T) {
	file, err := projection.Open(filepath.Join(t.TempDir(), "page.db"), bustest.New(t), state.Fold{}, projection.Options{Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := &gatherer{shard: &shard{file: file}}
	var got []*bus.Fetched
	for _, m := range []streams.MessageID{1, 2, 1, 3, 2} {
		data, err := event.Encode(event.Enqueued{ID: m})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, &bus.Fetched{Seq: uint64(m), Data: data})
	}
	p := &page{}
	for _, part := range [][]*bus.Fetched{got[:3], got[3:]} {
		if err := s.classify(p, 1, part); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.candidates) != 3 || p.candidates[0].ID != 1 || p.candidates[1].ID != 2 || p.candidates[2].ID != 3 {
		t.Errorf("got %d messages, want 1, 2, 3", len(p.candidates))
	}
}
