package state

import (
	"slices"

	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Limit: a list looks through 100,000 groups of an account. Beyond it: older ones are not listed, and the total stops
// there.
// Used up by: an account with many messages. Hurts: only that account, whose lists leave some out.
// Test: TestListsLookOnlySoFar.
const maxCounted = 100_000

// Group is what is known of a group, with the places of its messages' events, in
// the order of its messages.
type Group struct {
	request.Group
	Places []Place
}

// Find looks a group up by its sender's id or by the id of one of its messages,
// as ref, or by the message after if ref is empty. It leaves out the messages up
// to after. It is false where there is no such group.
func (a Account) Find(ref string, after streams.MessageID) (Group, bool, error) {
	m := after
	if ref != "" {
		m = a.named(ref)
	}
	if m == 0 {
		m, _ = streams.ParseMessageID(ref)
	}
	r, ok, err := a.record(m)
	if err != nil || !ok || !r.known() {
		return Group{}, false, err
	}
	g, err := a.group(m, r)
	g.after(after)
	return g, true, err
}

// Browse lists groups as asked for, and counts all that fit. It looks through
// 100,000 groups at most.
func (a Account) Browse(q request.Browse) (page []Group, total int, err error) {
	looked := 0
	err = a.eachGroup(q, func(m streams.MessageID, r record) (bool, error) {
		looked++
		more := looked < maxCounted
		onPage := total >= q.Offset && len(page) < q.Limit
		var one Group
		if onPage || picky(q) {
			var err error
			if one, err = a.group(m, r); err != nil {
				return false, err
			}
		}
		if picky(q) && !fits(q, one.Group) {
			return more, nil
		}
		if onPage {
			page = append(page, one)
		}
		total++
		return more, nil
	})
	return page, total, err
}

// eachGroup calls f with the first message of each group, in order, until f says
// false.
func (a Account) eachGroup(q request.Browse, f func(streams.MessageID, record) (bool, error)) error {
	first, last := streams.FirstIDAt(q.From), ^streams.MessageID(0)
	if !q.To.IsZero() {
		last = streams.FirstIDAt(q.To)
	}
	c := a.bucket(messagesBucket).Cursor()
	next := c.Next
	key, value := c.Seek(messageKey(a.account, first))
	if !q.Oldest {
		next = c.Prev
		if key, _ = c.Seek(messageKey(a.account, last)); key == nil {
			key, value = c.Last()
		} else {
			key, value = c.Prev()
		}
	}
	for ; key != nil && streams.AccountID(id(key, 0)) == a.account; key, value = next() {
		m := streams.MessageID(id(key, 1))
		if m < first || m >= last {
			return nil
		}
		r, err := decodeRecord(value)
		if err != nil {
			return err
		}
		if !r.known() || r.group != 0 && r.group != m {
			continue
		}
		if more, err := f(m, r); err != nil || !more {
			return err
		}
	}
	return nil
}

// picky says that not every group is asked for.
func picky(q request.Browse) bool { return len(q.States) > 0 || q.Device != 0 }

func fits(q request.Browse, g request.Group) bool {
	return (len(q.States) == 0 || slices.Contains(q.States, g.State)) && (q.Device == 0 || q.Device == g.Device)
}

// group collects what is known of a group, by one of its messages.
func (a Account) group(m streams.MessageID, r record) (Group, error) {
	one := Group{Group: request.Group{ID: m, Device: r.lane.Target}}
	if r.group != 0 {
		one.ID = r.group
	}
	var states []streams.State
	for _, m := range a.membersOf(m, r) {
		r, _, err := a.record(m)
		if err != nil {
			return one, err
		}
		if r.name != "" {
			one.Name = r.name
		}
		if one.Device == 0 {
			one.Device = r.device
		}
		member := request.Member{ID: m, Seq: r.seq, State: r.currentState(), Reason: r.reason}
		for _, step := range r.steps {
			member.Steps = append(member.Steps, request.Step{At: step.at, State: step.state})
		}
		states = append(states, member.State)
		one.Messages = append(one.Messages, member)
		one.Places = append(one.Places, Place{ID: m, Seq: r.seq})
	}
	one.State = streams.Together(states)
	return one, nil
}

// after leaves out the messages up to one.
func (g *Group) after(m streams.MessageID) {
	for len(g.Places) > 0 && g.Places[0].ID <= m {
		g.Places, g.Messages = g.Places[1:], g.Messages[1:]
	}
}

// membersOf lists the messages of a group, by any one of them.
func (a Account) membersOf(m streams.MessageID, r record) []streams.MessageID {
	if r.group == 0 {
		return []streams.MessageID{m}
	}
	var all []streams.MessageID
	eachKey(a.bucket(groupsBucket), key8(uint64(a.account), uint64(r.group)), func(key, _ []byte) bool {
		all = append(all, streams.MessageID(id(key, 2)))
		return true
	})
	return all
}

// named gives the group of a sender's id, zero if there is none.
func (a Account) named(name string) (group streams.MessageID) {
	prefix := namePrefix(a.account, name)
	eachKey(a.bucket(namesBucket), prefix, func(key, _ []byte) bool {
		group = streams.MessageID(id(key[len(prefix):], 0))
		return false
	})
	return group
}
