package state

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Render makes stored records and leases readable. All else is ids, which read
// well in hex.
func Render(bucket, key, value []byte) (k, v string) {
	k, v = hexWords(key), hexWords(value)
	switch {
	case bytes.Equal(bucket, messagesBucket):
		if r, err := decodeRecord(value); err == nil {
			v = fmt.Sprintf("seq=%d lane=%s state=%s round=%d tries=%d lease=%s device=%s reason=%q", r.seq, r.lane, r.currentState(), r.round, r.tries, r.lease, r.device, r.reason)
			v += fmt.Sprintf(" until=%s due=%s longer=%s group=%s name=%q steps=", stamp(r.until), stamp(r.due), stamp(r.extended), r.group, r.name)
			for _, step := range r.steps {
				v += fmt.Sprintf("[%d %s %s]", step.seq, stamp(step.at), step.state)
			}
		}
	case bytes.Equal(bucket, leasesBucket):
		if l, err := decodeLease(value); err == nil {
			v = fmt.Sprintf("device=%s name=%q start=%s until=%s length=%s reported=%s policy=%s attempts=%d held=%v",
				l.device, l.name, stamp(l.start), stamp(l.until), l.length, stamp(l.reported), l.policy, l.attempts, l.held)
		}
	case bytes.Equal(bucket, metaBucket):
		k = string(key)
	}
	return k, v
}

// hexWords writes bytes in hex, 8 by 8 as ids are.
func hexWords(b []byte) string {
	var words []string
	for ; len(b) > 8; b = b[8:] {
		words = append(words, hex.EncodeToString(b[:8]))
	}
	return strings.Join(append(words, hex.EncodeToString(b)), ".")
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format("2006-01-02T15:04:05.000Z")
}
