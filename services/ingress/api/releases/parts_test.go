package releases

import (
	"net/netip"
	"testing"

	"github.com/trunkline-sms/trunkline/streams"
)

func TestParts(t *testing.T) {
	const size = 1000
	here, there := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")
	p := newParts()
	for i, step := range []struct {
		to         netip.Prefix
		begin, end int64
		want       bool
	}{
		{here, 0, size, true},
		{here, size - 1, size, false}, {here, size - 1, size, false}, // the last byte, as often as one likes
		{here, 0, 400, false}, {here, 300, size, true}, // resumed a little before it broke off
		{here, 500, size, false}, {there, 0, 500, false}, {here, 0, 500, true}, // each on his own
		{here, 0, 0, false}, {here, 500, size, false}, // begun again after the last whole one
		{here, 0, size, true}, {here, 0, 500, true}, // one that is whole takes nothing from one that is resumed
		{here, 750, size, false}, {here, 250, 500, false}, {here, 0, 250, false}, {here, 500, 750, true}, // in any order
		{there, 500, size, true},
	} {
		if got := p.whole(part{step.to, 5}, span{step.begin, step.end}, size); got != step.want {
			t.Errorf("step %d, bytes %d to %d: got %t, want %t", i, step.begin, step.end, got, step.want)
		}
	}
	if len(p.sent) != 0 {
		t.Errorf("got %d downloads remembered, want none", len(p.sent))
	}
}

func TestParts_Bounded(t *testing.T) {
	p := newParts()
	for i := range int64(2 * maxParts) {
		p.whole(part{code: streams.VersionCode(i)}, span{0, 10}, 1000)
	}
	for i := range int64(2 * maxSpans) {
		p.whole(part{}, span{20 * i, 20*i + 1}, 1000)
	}
	if len(p.sent) != maxParts || len(p.sent[part{}]) != maxSpans {
		t.Errorf("got %d downloads and %d pieces of one in memory, want %d and %d", len(p.sent), len(p.sent[part{}]), maxParts, maxSpans)
	}
}
