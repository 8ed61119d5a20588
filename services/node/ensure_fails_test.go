package node

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

// An engine that cannot be asked is none that lacks something: nothing is said to be missing, and nothing to be well.
func TestEnsure_Unreachable(t *testing.T) {
	b := bustest.New(t)
	d := deployment(1)
	if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
		t.Fatal(err)
	}
	b.Conn.Close()
	for _, create := range []bool{true, false} {
		err := streams.Ensure(t.Context(), b.JS, d, create)
		var missing *streams.Missing
		if err == nil || errors.As(err, &missing) {
			t.Errorf("ensure, create %t: got %v", create, err)
		}
		if got := len(problems(err)); !create && got != 9 {
			t.Errorf("got %d problems, want one for each stream: %v", got, err)
		}
		for what, part := range map[string]error{
			"releases": streams.EnsureReleases(t.Context(), b.JS, d, create),
			"registry": streams.EnsureRegistry(t.Context(), b.JS, d, create),
		} {
			if got := len(problems(part)); got != 2 || errors.As(part, &missing) {
				t.Errorf("%s, create %t: got %v", what, create, part)
			}
		}
	}
	if used, err := streams.Used(t.Context(), b.JS, d); err == nil || used {
		t.Errorf("used: got %t, %v", used, err)
	}
	if shards, err := streams.FindShards(t.Context(), b.JS); err == nil || shards != 0 {
		t.Errorf("shards: got %d, %v", shards, err)
	}
	for _, name := range d.Names() {
		if err := streams.Change(t.Context(), b.JS, d, name); err == nil {
			t.Errorf("change %s: got no error", name)
		}
	}
}

// A stream that cannot be made is told of, and those that can are made: but none without the first, which says how many
// shards there are.
func TestEnsure_CannotCreate(t *testing.T) {
	d := deployment(1)
	for name, subject := range map[string]string{
		"ENQUEUE_0": "sms.barrier.0", "STATUS_0": "sms.horizon.0", "RELEASE": "app.release.1",
		"KV_accounts": "$KV.accounts.x", "KV_sessions": "$KV.sessions.x", "OBJ_apks": "$O.apks.C.x",
	} {
		t.Run(name, func(t *testing.T) {
			b := bustest.New(t)
			if _, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "other", Subjects: []string{subject}}); err != nil {
				t.Fatal(err)
			}
			err := streams.Ensure(t.Context(), b.JS, d, true)
			if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(strings.TrimPrefix(name, "KV_"), "OBJ_")) {
				t.Errorf("got %v, want what cannot be made", err)
			}
			want := slices.DeleteFunc(append(d.Names(), "other"), func(one string) bool { return one == name })
			if name == "ENQUEUE_0" {
				want = []string{"other"}
			}
			slices.Sort(want)
			if got := names(t, b); !slices.Equal(got, want) {
				t.Errorf("got streams %v, want %v", got, want)
			}
		})
	}
}

// Each setting of a bucket or of the releases' files that matters is compared.
func TestEnsure_DifferentBucket(t *testing.T) {
	b := bustest.New(t)
	if err := streams.Ensure(t.Context(), b.JS, deployment(1), true); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		stream string
		change func(*jetstream.StreamConfig)
	}{
		"history":      {"KV_devices", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject++ }},
		"bucket's TTL": {"KV_sessions", func(c *jetstream.StreamConfig) { c.MaxAge /= 2 }},
		"size":         {"OBJ_apks", func(c *jetstream.StreamConfig) { c.MaxBytes-- }},
		"files' TTL":   {"OBJ_apks", func(c *jetstream.StreamConfig) { c.MaxAge = 1e12 }},
	} {
		t.Run(name, func(t *testing.T) {
			as := configOf(t, b, test.stream)
			changed := as
			test.change(&changed)
			if _, err := b.JS.UpdateStream(t.Context(), changed); err != nil {
				t.Fatal(err)
			}
			mustDiffer(t, test.stream, streams.Ensure(t.Context(), b.JS, deployment(1), false))
			if _, err := b.JS.UpdateStream(t.Context(), as); err != nil {
				t.Fatal(err)
			}
			if err := streams.Ensure(t.Context(), b.JS, deployment(1), false); err != nil {
				t.Errorf("as it was: got %v", err)
			}
		})
	}
	more := deployment(1)
	more.Replicas = 3
	if got := len(problems(streams.Ensure(t.Context(), b.JS, more, false))); got != 9 {
		t.Errorf("with more replicas: got %d differences, want 9", got)
	}
}

func mustDiffer(t *testing.T, stream string, err error) {
	t.Helper()
	all := problems(err)
	var difference *streams.Difference
	if len(all) != 1 || !errors.As(all[0], &difference) || difference.Stream != stream {
		t.Errorf("got %v, want a difference of %s", all, stream)
	}
}

// What differs is made as it is defined, and only that.
func TestChange(t *testing.T) {
	b := bustest.New(t)
	d := deployment(2)
	if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ENQUEUE_0", "ENQUEUE_1", "STATUS_1", "KV_accounts", "KV_devices", "KV_claims"} {
		for _, one := range []string{"STATUS_0", name} {
			changed := configOf(t, b, one)
			if changed.MaxMsgsPerSubject > 0 {
				changed.MaxMsgsPerSubject += 3
			} else {
				changed.MaxBytes *= 2
			}
			if _, err := b.JS.UpdateStream(t.Context(), changed); err != nil {
				t.Fatal(err)
			}
		}
		if err := streams.Change(t.Context(), b.JS, d, name); err != nil {
			t.Fatal(err)
		}
		mustDiffer(t, "STATUS_0", streams.Ensure(t.Context(), b.JS, d, false))
		if err := streams.Change(t.Context(), b.JS, d, "STATUS_0"); err != nil {
			t.Fatal(err)
		}
		if err := streams.Ensure(t.Context(), b.JS, d, false); err != nil {
			t.Errorf("%s, changed: %v", name, err)
		}
	}
	// Of what has no definition of its own here, the replicas are changed; one node cannot have more.
	if err := streams.Change(t.Context(), b.JS, d, "OBJ_apks"); err != nil {
		t.Error(err)
	}
	d.Replicas = 3
	for _, name := range []string{"OBJ_apks", "KV_sessions", "ENQUEUE_0", "KV_accounts"} {
		if err := streams.Change(t.Context(), b.JS, d, name); err == nil {
			t.Errorf("%s: three replicas on one node gave no error", name)
		}
	}
	if err := streams.Change(t.Context(), b.JS, d, "none"); err == nil {
		t.Error("a stream that is not there: got no error")
	}
}

// A deployment is used once something was stored in any of its streams.
func TestUsed(t *testing.T) {
	d := deployment(1)
	for name, subject := range map[string]string{"": "", "STATUS_0": streams.HorizonSubject(0), "KV_sessions": "$KV.sessions.x", "RELEASE": streams.ReleaseSubject(1)} {
		b := bustest.New(t)
		if used, err := streams.Used(t.Context(), b.JS, d); err != nil || used {
			t.Errorf("an empty engine: got %t, %v", used, err)
		}
		if err := streams.Ensure(t.Context(), b.JS, d, true); err != nil {
			t.Fatal(err)
		}
		if subject != "" {
			if _, err := b.JS.Publish(t.Context(), subject, nil); err != nil {
				t.Fatal(err)
			}
		}
		if used, err := streams.Used(t.Context(), b.JS, d); err != nil || used != (name != "") {
			t.Errorf("%s has something: got %t, %v", name, used, err)
		}
	}
}

// Streams that do not say how many shards there are say nothing.
func TestFindShards(t *testing.T) {
	b := bustest.New(t)
	if err := streams.Ensure(t.Context(), b.JS, deployment(1), true); err != nil {
		t.Fatal(err)
	}
	whole := configOf(t, b, "ENQUEUE_0")
	var key string
	for one, value := range whole.Metadata {
		if value == "1" && !strings.HasPrefix(one, "_nats") {
			key = one
		}
	}
	for said, want := range map[string]streams.Shards{"1": 1, "64": 64, "0": 0, "-1": 0, "65": 0, "": 0, "one": 0} {
		c := whole
		c.Metadata = map[string]string{key: said}
		if _, err := b.JS.UpdateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		if got, err := streams.FindShards(t.Context(), b.JS); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: got %d, %v, want %d", said, got, err, want)
		}
	}
}

// A number of shards that cannot be makes nothing.
func TestEnsure_ShardsThatCannotBe(t *testing.T) {
	b := bustest.New(t)
	for _, shards := range []streams.Shards{0, -1, streams.MaxShards + 1} {
		if err := streams.Ensure(t.Context(), b.JS, deployment(shards), true); err == nil {
			t.Errorf("%d shards are accepted", shards)
		}
		if got := names(t, b); len(got) != 0 {
			t.Fatalf("%d shards: got streams %v, want none", shards, got)
		}
	}
}
