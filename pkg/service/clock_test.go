package service_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/clock/clocktest"
	"github.com/trunkline-sms/trunkline/pkg/service"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// The clock of a part is compared with that of the engine, and a part that is too far from it does not agree.
func TestClockWatch(t *testing.T) {
	for by, agrees := range map[time.Duration]bool{0: true, 20 * time.Second: true, 40 * time.Second: false, -40 * time.Second: false} {
		bustest.SimulateFrom(t, time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), func(t *testing.T) {
			b := bustest.New(t)
			if _, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "SOME", Subjects: []string{"some"}}); err != nil {
				t.Fatal(err)
			}
			machine := &clocktest.Stepped{}
			machine.Step(by)
			c := clock.New(clock.Options{Now: machine.Now})
			d := service.Deps{Bus: b, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Now: c.Now, Clock: c}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- service.ClockWatch{Deps: d, Streams: []string{"SOME", "NONE"}}.Run(ctx)
			}()
			time.Sleep(time.Minute)
			least, most := c.Skew()
			if (least-by).Abs() > time.Second || least != most || d.Agrees() != agrees {
				t.Errorf("%v ahead: measured %v to %v, agrees: %v, want %v", by, least, most, d.Agrees(), agrees)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
