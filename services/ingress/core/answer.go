package core

import "github.com/trunkline-sms/trunkline/streams/request"

// Room is what the answers to an account may take up. It is taken before a dispatcher is asked, since what has been
// leased cannot be refused any more.
type Room interface {
	Weigh(bytes int64) error // takes so much more, or gives it back: a fault where there is no room
	Try(bytes int64) bool    // takes it if the account has little
	Keep(bytes int64)        // gives back what is held beyond that
}

const (
	// perOutgoing is what room is taken for, for each message that a phone asks for: longer texts are few.
	perOutgoing = 1 << 10 // bytes
	// smallPage is what a page may have without room for it: phones that wait hold none. Used up by an account with as
	// many pages as it may hold, and of all together by as many as there are connections.
	smallPage = 16 << 10 // bytes
	// asAnswer is how often the bytes of what is answered are there: as it came, and as it is sent.
	asAnswer = 2
	// mostFound is how many bytes a dispatcher gives in one answer to a question about groups.
	mostFound = 6 << 20
	// needsTries bounds how often a page is asked for again that has become larger.
	needsTries = 3
)

// forPage is how large a page may be.
func (c Caller) forPage(limit int) int {
	switch {
	case c.Room == nil:
		return 0
	case limit*perOutgoing > smallPage && c.Room.Try(int64(asAnswer*limit*perOutgoing)):
		return limit * perOutgoing
	}
	return smallPage
}

// weigh takes room, or gives it back.
func (c Caller) weigh(bytes int) error {
	if c.Room == nil {
		return nil
	}
	return c.Room.Weigh(int64(asAnswer * bytes))
}

// pageOf makes the room fit a page.
func (c Caller) pageOf(pulled request.Pulled) {
	if c.Room == nil {
		return
	}
	size := 0
	for _, m := range pulled.Messages {
		size += len(m.Body)
	}
	c.Room.Keep(int64(asAnswer * size))
}

// found is how many bytes of messages an answer about groups has.
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
