package node

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

func deployment(shards streams.Shards) streams.Deployment {
	return streams.Deployment{Shards: shards, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 29}
}

// names lists the streams that the engine has, those of buckets too.
func names(t *testing.T, b *bus.Bus) (all []string) {
	t.Helper()
	lister := b.JS.StreamNames(t.Context())
	for name := range lister.Name() {
		all = append(all, name)
	}
	if err := lister.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// settings of a stream, as the engine has them.
func configOf(t *testing.T, b *bus.Bus, stream string) jetstream.StreamConfig {
	t.Helper()
	s, err := b.JS.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

// problems takes Ensure's error apart.
func problems(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return nil
}

func TestEnsure_Creates(t *testing.T) {
	for shards, want := range map[streams.Shards][]string{
		1: {"ENQUEUE_0", "KV_accounts", "KV_claims", "KV_devices", "KV_registry", "KV_sessions", "OBJ_apks", "RELEASE", "STATUS_0"},
		3: {"ENQUEUE_0", "ENQUEUE_1", "ENQUEUE_2", "KV_accounts", "KV_claims", "KV_devices", "KV_registry", "KV_sessions", "OBJ_apks", "RELEASE", "STATUS_0", "STATUS_1", "STATUS_2"},
	} {
		b := bustest.New(t)
		d := deployment(shards)
		if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, names(t, b)); diff != "" {
			t.Errorf("streams of %d shards (-want +got):\n%s", shards, diff)
		}
		if got, err := streams.FindShards(t.Context(), b.JS); err != nil || got != shards {
			t.Errorf("find shards: got %d, %v, want %d", got, err, shards)
		}
		// What was made is as it was defined, whether more may be made or not.
		for _, create := range []bool{true, false} {
			if err := streams.Ensure(t.Context(), b.JS, d, create); err != nil {
				t.Errorf("ensure again, create %v: %v", create, err)
			}
		}
		// Some were made before a first start broke off.
		if err := b.JS.DeleteStream(t.Context(), "STATUS_0"); err != nil {
			t.Fatal(err)
		}
		if err := b.JS.DeleteKeyValue(t.Context(), streams.DevicesBucket); err != nil {
			t.Fatal(err)
		}
		if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, names(t, b)); diff != "" {
			t.Errorf("streams after a second attempt (-want +got):\n%s", diff)
		}
	}
}

// What is not there is created only in a deployment that has not begun.
func TestEnsure_Missing(t *testing.T) {
	b := bustest.New(t)
	d := deployment(1)
	missing := func() (all []string) {
		t.Helper()
		for _, problem := range problems(streams.Ensure(t.Context(), b.JS, d, false)) {
			var missing *streams.Missing
			if !errors.As(problem, &missing) {
				t.Errorf("got %v, want only missing streams", problem)
				continue
			}
			all = append(all, missing.Stream)
		}
		slices.Sort(all)
		return all
	}
	want := []string{"ENQUEUE_0", "KV_accounts", "KV_claims", "KV_devices", "KV_registry", "KV_sessions", "OBJ_apks", "RELEASE", "STATUS_0"}
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(d.Names()))); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, missing()); diff != "" {
		t.Errorf("missing in an empty engine (-want +got):\n%s", diff)
	}
	if got := names(t, b); len(got) != 0 {
		t.Errorf("got streams %v, want none created", got)
	}
	if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ENQUEUE_0", "KV_accounts"} {
		if err := b.JS.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"ENQUEUE_0", "KV_accounts"}, missing()); diff != "" {
		t.Errorf("missing after a loss (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"KV_claims", "KV_devices", "KV_registry", "KV_sessions", "OBJ_apks", "RELEASE", "STATUS_0"}, names(t, b)); diff != "" {
		t.Errorf("streams (-want +got):\n%s", diff)
	}
}

// A setting that differs is reported, and nothing is changed.
func TestEnsure_Difference(t *testing.T) {
	tests := map[string]struct {
		stream string
		change func(*jetstream.StreamConfig)
		want   string // the start of what is said about it
	}{
		"size":        {"ENQUEUE_0", func(c *jetstream.StreamConfig) { c.MaxBytes *= 2 }, "max_bytes: "},
		"age":         {"STATUS_0", func(c *jetstream.StreamConfig) { c.MaxAge = 35 * 24 * time.Hour }, "max_age: "},
		"description": {"STATUS_0", func(c *jetstream.StreamConfig) { c.Description = "mine" }, "description: mine, want "},
		"another":     {"ENQUEUE_0", func(c *jetstream.StreamConfig) { c.DenyDelete = true }, "deny_delete: true, want "},
		"subjects":    {"STATUS_0", func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "mine") }, "subjects: "},
		"history":     {"KV_accounts", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 9 }, "history 9 "},
		"bucket TTL":  {"KV_claims", func(c *jetstream.StreamConfig) { c.MaxAge, c.Duplicates = 0, 0 }, "history 1 ttl 0s "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := bustest.New(t)
			if err := streams.Ensure(t.Context(), b.JS, deployment(1), true); err != nil {
				t.Fatal(err)
			}
			changed := configOf(t, b, test.stream)
			test.change(&changed)
			if _, err := b.JS.UpdateStream(t.Context(), changed); err != nil {
				t.Fatal(err)
			}
			before := configOf(t, b, test.stream)
			for _, create := range []bool{false, true} {
				all := problems(streams.Ensure(t.Context(), b.JS, deployment(1), create))
				var difference *streams.Difference
				if len(all) != 1 || !errors.As(all[0], &difference) || difference.Stream != test.stream ||
					len(difference.Fields) != 1 || !strings.HasPrefix(difference.Fields[0], test.want) {
					t.Errorf("create %v: got %v, want a difference of %s: %q", create, all, test.stream, test.want)
				}
			}
			if diff := cmp.Diff(before, configOf(t, b, test.stream)); diff != "" {
				t.Errorf("the stream was changed (-before +after):\n%s", diff)
			}
		})
	}
}

// The number of shards decides where an account's messages lie, so it stays.
func TestEnsure_OtherShards(t *testing.T) {
	b := bustest.New(t)
	if err := streams.Ensure(t.Context(), b.JS, deployment(2), true); err != nil {
		t.Fatal(err)
	}
	before := names(t, b)
	for _, shards := range []streams.Shards{1, 3, streams.MaxShards} {
		err := streams.Ensure(t.Context(), b.JS, deployment(shards), true)
		if err == nil || !strings.Contains(err.Error(), "began with 2 shards") {
			t.Errorf("%d shards: got %v, want a refusal that says how many there are", shards, err)
		}
	}
	for _, shards := range []streams.Shards{0, -1, streams.MaxShards + 1} {
		if err := streams.Ensure(t.Context(), b.JS, deployment(shards), true); err == nil {
			t.Errorf("%d shards are accepted", shards)
		}
	}
	if diff := cmp.Diff(before, names(t, b)); diff != "" {
		t.Errorf("streams (-before +after):\n%s", diff)
	}
}
