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

// fence refuses from now on what ingress instances have sent to a shard and has
// not arrived. Whatever is stored of it stands before. Each of them hears of it
// with its next commit, and asks anew for the room of what it has not sent.
func (q *Quota) fence(ctx context.Context, shard streams.Shard, instances []int) error {
	for _, instance := range instances {
		msg, err := event.Message(streams.FenceSubject(shard, instance), event.Fence{By: q.name})
		if err != nil {
			return err
		}
		// No matter what was there, and how often: one that comes in late
		// refuses what is under way once more, and nothing is lost by it.
		if _, err := q.bus.JS.PublishMsg(ctx, msg); err != nil {
			q.noteFull(shard, err)
			return fmt.Errorf("move the fence of ingress %d in shard %v: %w", instance, shard, err)
		}
	}
	return nil
}

// fenceOthers moves the fences of all instances that there have been in a shard,
// but for those that answered: grants of which this leader does not know end
// with it.
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

// instancesOf lists who has grants.
func instancesOf(grants []request.Grant) []int {
	var all []int
	for _, one := range grants {
		all = append(all, one.Instance)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
