package quota

import (
	"container/list"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// maxCount is the most messages of one grant: those of one atomic batch.
const maxCount = 1000

// monthOfAccount is what grants count against.
type monthOfAccount struct {
	account streams.AccountID
	month   string
}

// grant is an open grant.
type grant struct {
	request.Grant
	left int       // messages that have not arrived
	ends time.Time // by itself
	at   *list.Element
}

// grants are the open ones of a leadership.
type grants struct {
	byID     map[string]*grant
	byEnd    list.List                // of *grant, the one that ends first in front
	reserved map[monthOfAccount]int64 // what is left of them together
}

func newGrants() *grants {
	return &grants{byID: make(map[string]*grant), reserved: make(map[monthOfAccount]int64)}
}

// open adds a grant. It must not end before those that are there.
func (g *grants) open(given request.Grant, ends time.Time) {
	one := &grant{Grant: given, left: given.Count, ends: ends}
	one.at = g.byEnd.PushBack(one)
	g.byID[given.ID] = one
	g.reserved[one.key()] += int64(one.left)
}

// take takes messages off that have arrived, or will not come.
func (g *grants) take(one *grant, count int) {
	count = min(count, one.left)
	one.left -= count
	if g.reserved[one.key()] -= int64(count); g.reserved[one.key()] == 0 {
		delete(g.reserved, one.key())
	}
	if one.left == 0 {
		g.byEnd.Remove(one.at)
		delete(g.byID, one.ID)
	}
}

// due lists the grants that have come to their end by themselves.
func (g *grants) due(now time.Time) []request.Grant {
	var due []request.Grant
	for at := g.byEnd.Front(); at != nil; at = at.Next() {
		one := at.Value.(*grant)
		if now.Before(one.ends) {
			break
		}
		due = append(due, one.Grant)
	}
	return due
}

func (g *grant) key() monthOfAccount { return monthOfAccount{g.Account, g.Month} }
