package quota

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

type metrics struct {
	grants   prometheus.Counter
	refusals *prometheus.CounterVec
	leader   prometheus.Gauge
	lag      prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, l *ledger) *metrics {
	factory := promauto.With(r)
	factory.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trunkline_quota_open_grants",
		Help: "Grants whose messages have not all arrived.",
	}, func() float64 { return float64(l.openGrants()) })
	return &metrics{
		grants: factory.NewCounter(prometheus.CounterOpts{
			Name: "trunkline_quota_grants_total",
			Help: "Reservations granted.",
		}),
		refusals: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "trunkline_quota_refusals_total",
			Help: "Reservations refused, by reason.",
		}, []string{"reason"}),
		leader: factory.NewGauge(prometheus.GaugeOpts{
			Name: "trunkline_quota_leader",
			Help: "1 while this instance leads.",
		}),
		lag: factory.NewGauge(prometheus.GaugeOpts{
			Name: "trunkline_quota_lag_events",
			Help: "Events stored and not folded yet.",
		}),
	}
}

// refused counts a rejection, by the code of its fault: this package has only a few.
func (m *metrics) refused(err error) {
	m.refusals.WithLabelValues(fault.As(err).Code).Inc()
}
