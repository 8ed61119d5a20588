package dispatcher

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// metrics counts what happens, and reads what waits when it is asked.
type metrics struct {
	handedOut prometheus.Counter
	lapsed    *prometheus.CounterVec
	conflicts prometheus.Counter
	nearShare *prometheus.GaugeVec
	overShare *prometheus.GaugeVec

	mu     sync.Mutex
	shards []*shard
}

var (
	waitingDesc = prometheus.NewDesc("trunkline_dispatcher_waiting_messages", "Messages that wait to be handed out.", []string{"shard"}, nil)
	oldestDesc  = prometheus.NewDesc("trunkline_dispatcher_oldest_waiting_seconds", "Age of the oldest message that waits to be handed out.", []string{"shard"}, nil)
	lagDesc     = prometheus.NewDesc("trunkline_dispatcher_lag_events", "Events of a stream that the projection has not folded yet.", []string{"stream"}, nil)
)

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		handedOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trunkline_dispatcher_handed_out_messages_total", Help: "Messages given to phones.",
		}),
		lapsed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "trunkline_dispatcher_lapsed_messages_total", Help: "Messages whose lease ran out, by what became of them.",
		}, []string{"to"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "trunkline_dispatcher_decision_conflicts_total", Help: "Decisions that were made again because another came first.",
		}),
		nearShare: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "trunkline_dispatcher_accounts_near_share", Help: "Accounts that have stored three quarters of what they may in a stream, or more.",
		}, []string{"shard"}),
		overShare: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "trunkline_dispatcher_accounts_over_share", Help: "Accounts that have stored all that they may in a stream and are rejected.",
		}, []string{"shard"}),
	}
	if r != nil {
		r.MustRegister(m.handedOut, m.lapsed, m.conflicts, m.nearShare, m.overShare, m)
	}
	return m
}

func (m *metrics) watch(s *shard) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shards = append(m.shards, s)
}

func (m *metrics) forget(s *shard) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, other := range m.shards {
		if other == s {
			m.shards = append(m.shards[:i:i], m.shards[i+1:]...)
			return
		}
	}
}

// lapses counts what a lapse event says.
func (m *metrics) lapses(e projection.Event) {
	if event.Kind(e.Kind) != event.KindLapsed {
		return
	}
	lapsed, err := event.Decode[event.Lapsed](e.Data)
	if err != nil {
		return
	}
	for _, lapse := range lapsed.Messages {
		m.lapsed.WithLabelValues(lapse.To.String()).Inc()
	}
}

// Describe is prometheus.Collector's.
func (m *metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{waitingDesc, oldestDesc, lagDesc} {
		descs <- d
	}
}

// Collect is prometheus.Collector's.
func (m *metrics) Collect(values chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.shards {
		var depth uint64
		var age time.Duration
		_ = s.view(func(v state.View) error {
			depth = v.Depth()
			if oldest, ok := v.OldestWaiting(); ok {
				age = max(s.deps.Now().Sub(oldest), 0)
			}
			return nil
		})
		shard := s.number.String()
		values <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(depth), shard)
		values <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, age.Seconds(), shard)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		lag, err := s.file.Lag(ctx)
		cancel()
		if err != nil {
			continue
		}
		for stream, events := range lag {
			values <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, float64(events), stream)
		}
	}
}
