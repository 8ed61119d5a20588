package bus_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

// BenchmarkFence is what a fence costs a commit: on one engine, and on three, where singles are pipelined without one, and
// one batch is under way at a time with it.
func BenchmarkFence(b *testing.B) {
	for name, replicas := range map[string]int{"one": 1, "three": 3} {
		for _, load := range []struct{ senders, messages int }{{1, 1}, {32, 1}, {256, 1}, {8, 200}} {
			for _, with := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/%dx%d/fence=%t", name, load.senders, load.messages, with), func(b *testing.B) {
					var made *bus.Bus
					o := bus.CommitterOptions{}
					if replicas == 1 {
						made = durable(b)
					} else {
						made = startCluster(b)
						makeReplicas(b, made)
						o.Threshold = math.MaxInt
					}
					var fence *bus.Fence
					if with {
						fence = bus.NewFence(made, stream)
						if err := fence.Use(context.Background(), message(fenceSubject, "", "mine")); err != nil {
							b.Fatal(err)
						}
						o.Fence = fence
					}
					c := bus.NewCommitter(made, stream, o)
					start(b, c.Run)
					spread(b, load.senders, load.messages, func(msgs []*nats.Msg) error {
						if with {
							e, err := fence.Expect(context.Background())
							if err != nil {
								return err
							}
							e.Put(msgs[0])
						}
						_, err := c.Commit(context.Background(), msgs)
						return err
					})
				})
			}
		}
	}
}
