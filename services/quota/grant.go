package quota

import (
	"container/list"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// maxCount is the most messages of one grant: as many as one request may have.
const maxCount = 1000

// monthOfAccount is a month of an account: messages and grants are counted by it.
type monthOfAccount struct {
	account streams.AccountID
	month   string
}

// grant is an open grant.
type grant struct {
	request.Grant
	left int       // messages that have not arrived yet
	ends time.Time // when it ends by itself
	at   *list.Element
}

// grants are the open grants of a leadership.
type grants struct {
	byID     map[string]*grant
	byEnd    list.List                // of *grant, the first to end in front
	reserved map[monthOfAccount]int64 // messages left in all of them
}

func newGrants() *grants {
	return &grants{byID: make(map[string]*grant), reserved: make(map[monthOfAccount]int64)}
}

// open adds a grant. It must not end before any that is open.
func (g *grants) open(given request.Grant, ends time.Time) {
	one := &grant{Grant: given, left: given.Count, ends: ends}
	one.at = g.byEnd.PushBack(one)
	g.byID[given.ID] = one
	g.reserved[one.key()] += int64(one.left)
}

// take deducts messages that have arrived, or that will not come. A grant without
// any left is closed.
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

// due lists the grants whose time is over.
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
