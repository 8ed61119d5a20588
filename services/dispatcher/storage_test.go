package dispatcher_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// storageTold waits until ingresses are told something that fits.
func (h *harness) storageTold(fits func(map[streams.AccountID]request.Storage) bool) map[streams.AccountID]request.Storage {
	h.t.Helper()
	heard, err := h.bus.Conn.SubscribeSync(request.IngressStorage)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = heard.Unsubscribe() }()
	for end := time.Now().Add(time.Minute); ; {
		m, err := heard.NextMsg(time.Until(end))
		if err != nil {
			h.t.Fatalf("nothing like that was told: %v", err)
		}
		all := storageIn(h.t, m)
		if fits(all) {
			return all
		}
	}
}

func storageIn(t testing.TB, m *nats.Msg) map[streams.AccountID]request.Storage {
	t.Helper()
	var told request.StorageUse
	if err := json.Unmarshal(m.Data, &told); err != nil {
		t.Fatal(err)
	}
	all := map[streams.AccountID]request.Storage{}
	for _, one := range told.Accounts {
		all[one.Account] = one
	}
	return all
}

// limit sets how large a stream may be, so that so much of it is used.
func (h *harness) limit(stream string, percent uint64) {
	h.t.Helper()
	s, err := h.bus.JS.Stream(h.t.Context(), stream)
	if err != nil {
		h.t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxBytes = int64(s.CachedInfo().State.Bytes * 100 / percent)
	if _, err := h.bus.JS.UpdateStream(h.t.Context(), cfg); err != nil {
		h.t.Fatal(err)
	}
	if stream == streams.StatusStream(0) {
		return // which has no room now
	}
	// It is looked at again when something was stored.
	h.publish(streams.ReportSubject(0, streams.AccountIDOf("nobody")), event.Reported{Messages: []event.Report{{ID: h.ids.Message(), State: streams.Sent}}})
}

// An account may hold most of what the others leave. What it holds is counted
// to the byte, in each stream, and the same after a rebuild.
func TestSharesOfStreams(t *testing.T) {
	h := newHarness(t, 1)
	big, small := streams.AccountIDOf("big"), streams.AccountIDOf("small")
	var ids []streams.MessageID
	for range 60 {
		ids = append(ids, h.ids.Message())
		h.publish(streams.EnqueueSubject(0, big, normal), event.Enqueued{ID: ids[len(ids)-1], Phone: "+40700000000", Text: event.Private(strings.Repeat("x", 500)), Month: "2026-11"})
	}
	h.enqueue(small, normal, 10)
	h.folded(big)
	none := func(all map[streams.AccountID]request.Storage) bool { return len(all) == 0 }
	h.storageTold(none)

	h.limit(streams.EnqueueStream(0), 80)
	near := h.storageTold(func(all map[streams.AccountID]request.Storage) bool { return len(all) > 0 })
	s, err := h.bus.JS.Stream(t.Context(), streams.EnqueueStream(0))
	if err != nil {
		t.Fatal(err)
	}
	// What big holds is the stream without its last ten messages, all of one length.
	state, limit := s.CachedInfo().State, uint64(s.CachedInfo().Config.MaxBytes)
	var ofSmall uint64
	for seq := state.LastSeq - 9; seq <= state.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		header := "NATS/1.0\r\nTrunkline-Kind: message.enqueued.v1\r\n\r\n"
		ofSmall += uint64(22 + 4 + 8 + len(m.Subject) + len(header) + len(m.Data))
	}
	held, free := state.Bytes-ofSmall, limit-state.Bytes
	if want := (request.Storage{Account: big, Enqueue: int(held * 100 / (held + free))}); len(near) != 1 || near[big] != want {
		t.Errorf("at 80 percent: got %+v, want %+v", near, want)
	}

	h.limit(streams.EnqueueStream(0), 95)
	over := h.storageTold(func(all map[streams.AccountID]request.Storage) bool { return all[big].Over() })
	if one := over[big]; !one.EnqueueOver || one.StatusOver || one.Status != 0 || len(over) != 1 {
		t.Errorf("at 95 percent: got %+v", over)
	}
	h.report(big, "phone", streams.Delivered, ids...)
	h.limit(streams.StatusStream(0), 96)
	before := h.storageTold(func(all map[streams.AccountID]request.Storage) bool { return all[big].StatusOver })

	h.stop()
	h.dir = t.TempDir() // without the file, all is folded again
	h.start()
	after := h.storageTold(func(all map[streams.AccountID]request.Storage) bool { return len(all) > 0 })
	if before[big] != after[big] || len(before) != len(after) {
		t.Errorf("before a rebuild %+v, after it %+v", before, after)
	}
	h.limit(streams.StatusStream(0), 50)
	h.limit(streams.EnqueueStream(0), 50)
	h.storageTold(none)
}
