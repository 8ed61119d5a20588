package simulation

import (
	"strings"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// counted is how many messages of an account are stored, by the month in which they count.
type counted map[string]map[string]int64

// reckonMonths holds what is stored to the limits of all months, and quota to what is stored. The caller has the
// model's lock.
func (w *world) reckonMonths() {
	all := counted{}
	seen := map[string]streams.MessageID{}
	for shard := range w.shards {
		w.eachAccepted(streams.Shard(shard), func(at time.Time, e event.Enqueued) {
			s := w.model.sms[e.Text.Reveal()]
			if s == nil {
				w.model.breach("a text is stored that nobody sent: %s", e.ID)
				return
			}
			switch seen[e.Text.Reveal()] {
			case e.ID:
				return // it was scheduled, and is due
			case 0:
				seen[e.Text.Reveal()] = e.ID
			default:
				w.model.breach("%s was sent once, and is stored as %s and as %s", e.Text.Reveal(), seen[e.Text.Reveal()], e.ID)
			}
			if !w.model.counts(e.Month, at) {
				w.model.breach("%s was stored at %s, and counts in %s", e.Text.Reveal(), stamp(at), e.Month)
			}
			if all[s.account] == nil {
				all[s.account] = map[string]int64{}
			}
			all[s.account][e.Month]++
		})
	}
	for _, own := range w.tenants {
		for month, n := range all[own.name] {
			if own.limit > 0 && n > own.limit {
				w.model.breach("account %s: %d stored in %s, the limit is %d", own.name, n, month, own.limit)
			}
		}
		usage, ok := operate[request.Usage](w, request.QuotaUsage, request.UsageOf{Account: own.id})
		if n := all[own.name][usage.Month]; !ok || usage.Used != n {
			w.model.breach("account %s: %d used in %s, %d are stored", own.name, usage.Used, usage.Month, n)
		}
	}
}

// eachAccepted reads what a shard has accepted.
func (w *world) eachAccepted(shard streams.Shard, f func(time.Time, event.Enqueued)) {
	stream, err := w.bus.JS.Stream(w.epoch, streams.EnqueueStream(shard))
	must(w.t, err)
	state := stream.CachedInfo().State
	ids := givers{}
	accepted := func(at time.Time, e event.Enqueued) {
		if !e.Released && !ids.mayGive(e.ID) {
			w.model.breach("%s is stored under %s, which its ingress had not reserved", e.Text.Reveal(), e.ID)
		}
		f(at, e)
	}
	for seq := state.FirstSeq; seq <= state.LastSeq; seq++ {
		m, err := stream.GetMsg(w.epoch, seq)
		if err != nil {
			continue // a marker that has gone
		}
		switch kind := event.Kind(m.Header.Get(event.KindHeader)); kind {
		case event.KindEnqueued:
			e, err := event.Decode[event.Enqueued](m.Data)
			must(w.t, err)
			accepted(m.Time, e)
		case event.KindScheduled:
			e, err := event.Decode[event.Scheduled](m.Data)
			must(w.t, err)
			accepted(m.Time, e.Enqueued)
		case event.KindReserved:
			e, err := event.Decode[event.Reserved](m.Data)
			must(w.t, err)
			ids.reserved(m.Subject, e)
		default:
			if strings.HasPrefix(m.Subject, "sms.enqueue.") && kind == "" {
				w.t.Errorf("%s at %d has no kind", m.Subject, seq)
			}
		}
	}
}
