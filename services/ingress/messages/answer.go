package messages

import (
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// perOutgoing is the room that is taken for each message that a phone asks for: longer texts are few.
	perOutgoing = 1 << 10 // bytes
	// Limit: a page of 16 KiB takes no room of the answers, so that phones can wait. Beyond it: room for a larger one is
	// taken once there is work, and the dispatcher is asked again.
	// Used up by: an account with as many pages as it may have. Hurts: nobody: all together have as many as there are
	// connections. Test: TestPagesFitTheRoom.
	smallPage = 16 << 10 // bytes
	// asAnswer is how often an answer is in memory: as it came, and as it is sent.
	asAnswer = 2
	// Limit: a dispatcher's answer about groups has 6 MiB, and so much room is taken before it is asked.
	// Used up by: each look-up, for as long as it takes. Hurts: only the account, which has few of them at a time.
	mostFound = 6 << 20
	// needsTries bounds how often a page is asked for again because it has become larger.
	needsTries = 3
)

// answerRoom is the room that answers to a caller may take up; without a Room there is no bound.
type answerRoom struct{ access.Room }

// forPage is how large a page may be.
func (r answerRoom) forPage(limit int) int {
	switch {
	case r.Room == nil:
		return 0
	case limit*perOutgoing > smallPage && r.Try(int64(asAnswer*limit*perOutgoing)):
		return limit * perOutgoing
	}
	return smallPage
}

// weigh takes room, or gives it back.
func (r answerRoom) weigh(bytes int) error {
	if r.Room == nil {
		return nil
	}
	return r.Weigh(int64(asAnswer * bytes))
}

// pageOf gives back what a page does not need of its room.
func (r answerRoom) pageOf(pulled request.Pulled) {
	if r.Room == nil {
		return
	}
	size := 0
	for _, m := range pulled.Messages {
		size += len(m.Body)
	}
	r.Keep(int64(asAnswer * size))
}

// found is how many bytes of messages are in an answer about groups.
func found(answer any) (size int) {
	var groups []request.Group
	switch a := answer.(type) {
	case request.Found:
		if a.Group != nil {
			groups = []request.Group{*a.Group}
		}
	case request.Browsed:
		groups = a.Groups
	}
	for _, g := range groups {
		for _, m := range g.Messages {
			size += len(m.Body)
		}
	}
	return size
}
