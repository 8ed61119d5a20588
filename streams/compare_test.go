package streams

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Every setting is compared, ours beside it too; what the engine notes for itself is not.
func TestCompare(t *testing.T) {
	base := func() jetstream.StreamConfig {
		return jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxBytes: 5, Metadata: map[string]string{"ours": "1"}}
	}
	for name, test := range map[string]struct {
		change func(*jetstream.StreamConfig)
		want   []string
	}{
		"nothing":      {func(*jetstream.StreamConfig) {}, nil},
		"the engine's": {func(c *jetstream.StreamConfig) { c.Metadata["_nats.level"] = "2" }, nil},
		"ours":         {func(c *jetstream.StreamConfig) { c.Metadata["ours"] = "2" }, []string{"metadata: map[ours:2], want map[ours:1]"}},
		"ours is gone": {func(c *jetstream.StreamConfig) { c.Metadata = nil }, []string{"metadata: none, want map[ours:1]"}},
		"another's":    {func(c *jetstream.StreamConfig) { c.Metadata["mine"] = "1" }, []string{"metadata: map[mine:1 ours:1], want map[ours:1]"}},
		"several": {func(c *jetstream.StreamConfig) {
			c.MaxBytes, c.Subjects, c.Description, c.Sealed = 6, []string{"t"}, "d", true
		},
			[]string{"description: d, want <nil>", "max_bytes: 6, want 5", "sealed: true, want <nil>", "subjects: [t], want [s]"}},
		"an object": {func(c *jetstream.StreamConfig) { c.Placement = &jetstream.Placement{Cluster: "c"} }, []string{"placement: map[cluster:c], want <nil>"}},
	} {
		have := base()
		test.change(&have)
		for range 10 { // the order is not by chance
			err := compare(have, base())
			var got []string
			var difference *Difference
			if errors.As(err, &difference) {
				got = difference.Fields
				if difference.Stream != "S" {
					t.Errorf("%s: got a difference of %s", name, difference.Stream)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Fatalf("%s: got %q, want %q", name, got, test.want)
			}
		}
	}
}

func TestErrorsSayWhat(t *testing.T) {
	if got, want := (&Difference{"S", []string{"a", "b"}}).Error(), "stream S differs from its definition: a; b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (&Missing{"S"}).Error(), "stream S is missing although this deployment has begun: restore the data directory, nothing was created"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Stored ids hold times from there on, for ever.
func TestEpoch(t *testing.T) {
	if got := Epoch.Format(time.RFC3339Nano); got != "2026-01-01T00:00:00Z" {
		t.Errorf("got %s", got)
	}
}
