package operator

import (
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
)

// An apply that broke off is finished by the next one. Once anything was stored, what is missing was lost, and is made
// created again only if that is asked for.
func TestStreamApply_Missing(t *testing.T) {
	b := bustest.New(t)
	want := streams.Deployment{Shards: 2, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}
	apply := func(c streamApply) (names []string, err error) {
		done, err := c.apply(t.Context(), b.JS, want)
		for _, one := range done {
			names = append(names, one.Stream)
		}
		return names, err
	}
	if made, err := apply(streamApply{}); err != nil || len(made) != len(want.Names()) {
		t.Fatalf("at first: made %v, %v, want all", made, err)
	}
	for _, used := range []bool{false, true} {
		if used {
			if _, err := b.JS.Publish(t.Context(), streams.BarrierSubject(1), nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range want.Names() {
			if used && name == streams.EnqueueStream(1) {
				continue
			}
			if err := b.JS.DeleteStream(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			made, err := apply(streamApply{})
			if used {
				if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "--missing") {
					t.Errorf("used: %s: made %v, %v, want a refusal", name, made, err)
				}
				made, err = apply(streamApply{Missing: true})
			}
			if err != nil || len(made) != 1 || made[0] != name {
				t.Errorf("used %t: made %v, %v, want %s", used, made, err, name)
			}
		}
	}
}
