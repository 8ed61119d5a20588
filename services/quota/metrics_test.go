package quota

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

func TestMetrics(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		w := newWorld(t, 1)
		leader := w.start("a")
		w.await("a leader", w.granting)
		standby := w.start("b")
		w.mustReserve(alice, 3, 5)
		w.mustReserve(alice, 2, 5)
		if _, err := w.reserve(alice, 1, 5); err == nil {
			t.Fatal("granted over the limit")
		}
		got := map[string]map[string]float64{"leader": leader.measured(), "standby": standby.measured()}
		want := map[string]map[string]float64{
			"leader": {
				"trunkline_quota_leader":         1,
				"trunkline_quota_open_grants":    2,
				"trunkline_quota_grants_total":   2,
				"trunkline_quota_refusals_total": 1,
				"trunkline_quota_lag_events":     0,
			},
			"standby": {
				"trunkline_quota_leader":       0,
				"trunkline_quota_open_grants":  0,
				"trunkline_quota_grants_total": 0,
				"trunkline_quota_lag_events":   0,
			},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
	})
}

// measured sums an instance's metrics by name.
func (i *instance) measured() map[string]float64 {
	i.w.t.Helper()
	families, err := i.gauges.Gather()
	if err != nil {
		i.w.t.Fatal(err)
	}
	sums := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sums[f.GetName()] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sums
}
