package releases

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/trunkline-sms/trunkline/pkg/bounded"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// maxParts bounds the downloads in parts that are remembered.
	//
	// Limit: of 4,096 downloads in parts it is remembered which parts were sent.
	// Beyond it: any one of them is forgotten: it is served and not counted.
	// Used up by: strangers. Hurts: the counter of downloads. Test: TestParts_Bounded.
	maxParts = 4096
	// maxSpans bounds the pieces of a download that do not touch: apps resume at the end of what they have.
	//
	// Limit: of a download in parts 16 pieces that do not touch are remembered. Beyond it: the others are
	// forgotten: the download is served and not counted.
	// Used up by: a client that asks for scattered pieces. Hurts: the counter of downloads. Test:
	// TestParts_Bounded.
	maxSpans = 16
)

// part is a release, and the network that it is downloaded to.
type part struct {
	to   netip.Prefix
	code streams.VersionCode
}

// span is bytes of a file, from begin to before end.
type span struct{ begin, end int64 }

// parts knows what was sent of files that are downloaded in parts. A download counts once the whole file was sent, in
// whatever parts: its last byte alone is no download.
type parts struct {
	mu   sync.Mutex
	sent map[part][]span // in order, and none touches another
}

func newParts() *parts { return &parts{sent: map[part][]span{}} }

// whole notes a part that was sent, and says whether the whole file has been sent now. Then it begins again.
func (p *parts) whole(of part, sent span, size int64) bool {
	if sent.end <= sent.begin {
		return false
	}
	if sent == (span{0, size}) {
		return true // others that resume from the same network go on
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	all := join(p.sent[of], sent)
	if len(all) > maxSpans {
		all = all[:maxSpans]
	}
	if all[0] == (span{0, size}) {
		delete(p.sent, of)
		return true
	}
	bounded.Put(p.sent, maxParts, of, all)
	return false
}

// join adds a span to others.
func join(all []span, more span) []span {
	joined := make([]span, 0, len(all)+1)
	for _, one := range all {
		if one.end < more.begin || one.begin > more.end {
			joined = append(joined, one)
			continue
		}
		more = span{min(one.begin, more.begin), max(one.end, more.end)}
	}
	joined = append(joined, more)
	slices.SortFunc(joined, func(a, b span) int { return int(min(max(a.begin-b.begin, -1), 1)) })
	return joined
}
