package simulation

import (
	"strconv"
	"strings"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
)

// givers are who gives ids in a shard under which number, as its stream says.
type givers map[string]giver

type giver struct {
	by           string
	from, before time.Time
}

// reserved notes an event on a subject.
func (g givers) reserved(subject string, e event.Reserved) {
	number := subject[strings.LastIndexByte(subject, '.')+1:]
	own := g[number]
	if own.by != e.By {
		own.by, own.from = e.By, own.before
	}
	own.before = e.Before
	g[number] = own
}

// mayGive says whether a message may be stored now under an id: only among those that its ingress has reserved.
func (g givers) mayGive(id streams.MessageID) bool {
	own := g[strconv.Itoa(int(id>>12&streams.MaxInstance))]
	return streams.FirstIDAt(own.from) <= id && id < streams.FirstIDAt(own.before)
}
