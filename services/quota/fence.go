package quota

import (
	"context"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// fence moves the fences of ingress instances in a shard. What they have sent and is
// not stored yet never will be, and what is stored comes before the moved fence. Each
// instance learns of that with its next commit, and asks again for the room of what
// it has not sent.
func (q *Quota) fence(ctx context.Context, shard streams.Shard, instances []int) error {
	for _, instance := range instances {
		msg, err := event.Message(streams.FenceSubject(shard, instance), event.Fence{By: q.name})
		if err != nil {
			return err
		}
		// This needs no expectation and may be stored twice: one that comes late only
		// rejects again what is under way then, and that is sent again.
		if _, err := q.bus.JS.PublishMsg(ctx, msg); err != nil {
			q.noteFull(shard, err)
			return fmt.Errorf("move the fence of ingress %d in shard %v: %w", instance, shard, err)
		}
	}
	return nil
}

// fenceOthers moves the fences of all instances that have ever stored in a shard,
// except those that have answered. An instance that did not answer may have grants
// that this leader does not know: after this they can no longer be used.
func (q *Quota) fenceOthers(ctx context.Context, shard streams.Shard, answered map[int]bool) error {
	stream, err := q.bus.JS.Stream(ctx, streams.EnqueueStream(shard))
	if err != nil {
		return fmt.Errorf("open %s: %w", streams.EnqueueStream(shard), err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(streams.FenceSubjects(shard)))
	if err != nil {
		return fmt.Errorf("list the fences of shard %v: %w", shard, err)
	}
	var others []int
	for subject := range info.State.Subjects {
		if instance, err := streams.ParseFenceSubject(subject); err == nil && !answered[instance] {
			others = append(others, instance)
		}
	}
	slices.Sort(others)
	return q.fence(ctx, shard, others)
}

// instancesOf lists the instances that have the grants.
func instancesOf(grants []request.Grant) []int {
	var all []int
	for _, one := range grants {
		all = append(all, one.Instance)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
