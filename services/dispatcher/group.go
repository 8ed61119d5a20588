package dispatcher

import (
	"context"
	"encoding/base64"
	"slices"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// maxBrowse is the most groups of a page. Used up by one request, which
	// alone is refused.
	maxBrowse = 100
	// maxCounted bounds what is looked through for a page and its total. Used
	// up by an account with many messages, and only its own lists leave some
	// out.
	maxCounted = 100_000
	// maxAnswer is the most bytes of messages in an answer, as it is sent: what is
	// larger comes in several. Used up by an account with large groups, which
	// alone come in parts.
	maxAnswer = 6 << 20
	// maxRead is the most bytes of messages that are read for a list. Used up
	// by a list of large messages, which alone is refused.
	maxRead = 24 << 20
	// bodiesAtATime is how many messages are read at a time for an answer.
	// Used up by each large answer, and it hurts nobody: the next ones are
	// read after.
	bodiesAtATime = 32
)

// found is a group on its way into an answer: where the messages' events stand
// beside what the fold says of them.
type found struct {
	group request.Group
	seqs  []candidate
}

// find looks a group up by its sender's id, or by the id of one of its messages.
func (s *shard) find(ctx context.Context, q request.Find) (request.Found, error) {
	if err := s.ready(ctx); err != nil {
		return request.Found{}, err
	}
	if !q.Older {
		// It may have been accepted a moment ago, and be folded in part.
		if err := s.foldKnown(ctx, q.Account); err != nil {
			return request.Found{}, err
		}
	}
	var got []found // one, or none
	err := s.view(func(v view) error {
		m := q.After
		if q.Ref != "" {
			m = v.named(q.Account, q.Ref)
		}
		if m == 0 {
			m, _ = streams.ParseMessageID(q.Ref)
		}
		r, ok, err := v.record(q.Account, m)
		if err != nil || !ok || !r.known() {
			return err
		}
		one, err := v.gather(q.Account, m, r)
		one.after(q.After)
		got = append(got, one)
		return err
	})
	if err != nil || len(got) == 0 {
		return request.Found{}, err
	}
	if _, err := s.addBodies(ctx, got, true); err != nil {
		return request.Found{}, err
	}
	return request.Found{Group: &got[0].group}, nil
}

// browse lists groups. It looks through at most maxCounted messages.
func (s *shard) browse(ctx context.Context, q request.Browse) (request.Browsed, error) {
	answer := request.Browsed{Groups: []request.Group{}}
	if q.Limit < 1 || q.Limit > maxBrowse || q.Offset < 0 {
		return answer, fault.New(fault.Invalid, "bad_limit", "A page has 1 to 100 groups")
	}
	if err := s.ready(ctx); err != nil {
		return answer, err
	}
	if err := s.foldKnown(ctx, q.Account); err != nil {
		return answer, err
	}
	var page []found
	err := s.view(func(v view) error {
		looked := 0
		return v.heads(q, func(m streams.MessageID, r record) (bool, error) {
			looked++
			more := looked < maxCounted
			onPage := answer.Total >= q.Offset && len(page) < q.Limit
			var one found
			if onPage || picky(q) {
				var err error
				if one, err = v.gather(q.Account, m, r); err != nil {
					return false, err
				}
			}
			if picky(q) && !fits(q, one.group) {
				return more, nil
			}
			if onPage {
				page = append(page, one)
			}
			answer.Total++
			return more, nil
		})
	})
	if err != nil {
		return answer, err
	}
	if whole, err := s.addBodies(ctx, page, q.Content); err != nil {
		return answer, err
	} else if !whole && len(page) > 1 {
		return answer, errTooMuch
	}
	for _, one := range page {
		answer.Groups = append(answer.Groups, one.group)
	}
	return answer, nil
}

// heads calls f with the first messages of groups, in order, until f says
// false.
func (v view) heads(q request.Browse, f func(streams.MessageID, record) (bool, error)) error {
	first, last := streams.FirstIDAt(q.From), ^streams.MessageID(0)
	if !q.To.IsZero() {
		last = streams.FirstIDAt(q.To)
	}
	c := v.bucket(messagesBucket).Cursor()
	next := c.Next
	key, value := c.Seek(messageKey(q.Account, first))
	if !q.Oldest {
		next = c.Prev
		if key, _ = c.Seek(messageKey(q.Account, last)); key == nil {
			key, value = c.Last()
		} else {
			key, value = c.Prev()
		}
	}
	for ; key != nil && streams.AccountID(id(key, 0)) == q.Account; key, value = next() {
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

// gather collects what the fold says of a group, by one of its messages.
func (v view) gather(a streams.AccountID, m streams.MessageID, r record) (found, error) {
	one := found{group: request.Group{ID: m, Device: r.lane.Target}}
	if r.group != 0 {
		one.group.ID = r.group
	}
	var states []streams.State
	for _, m := range v.group(a, m, r) {
		r, _, err := v.record(a, m)
		if err != nil {
			return one, err
		}
		if r.name != "" {
			one.group.Name = r.name
		}
		if one.group.Device == 0 {
			one.group.Device = r.device
		}
		member := request.Member{ID: m, Seq: r.seq, State: r.stands(), Reason: r.reason}
		for _, step := range r.steps {
			member.Steps = append(member.Steps, request.Step{At: step.at, State: step.state})
		}
		states = append(states, member.State)
		one.group.Messages = append(one.group.Messages, member)
		one.seqs = append(one.seqs, candidate{id: m, seq: r.seq})
	}
	one.group.State = streams.Together(states)
	return one, nil
}

// after leaves out the messages up to one.
func (f *found) after(m streams.MessageID) {
	for len(f.seqs) > 0 && f.seqs[0].id <= m {
		f.seqs, f.group.Messages = f.seqs[1:], f.group.Messages[1:]
	}
}

var errTooMuch = fault.New(fault.Invalid, "too_much", "The messages are larger than an answer may be: ask for fewer")

// addBodies reads the events of groups. It ends where the answer would become
// too large, and leaves out the rest of the group that it came to, and the
// groups after it.
func (s *shard) addBodies(ctx context.Context, page []found, content bool) (whole bool, err error) {
	size, read := 0, 0
	for i := range page {
		g := &page[i].group
		for first := 0; first < len(g.Messages); first += bodiesAtATime {
			some := page[i].seqs[first:min(first+bodiesAtATime, len(g.Messages))]
			if err := s.read(ctx, some); err != nil {
				return false, err
			}
			for j, c := range some {
				m := &g.Messages[first+j]
				if read += len(c.body); read > maxRead && i > 0 {
					return false, nil
				}
				if m.Body = c.body; m.Body != nil && !content {
					if m.Body, err = withoutContent(m.Body); err != nil {
						return false, err
					}
				}
				some[j].body = nil
				if size += answerBytes(m); size > maxAnswer && first+j > 0 {
					g.Messages, g.More = g.Messages[:first+j], true
					return false, nil
				}
			}
		}
	}
	return size <= maxAnswer, nil
}

// answerBytes is about what a message takes in an answer.
func answerBytes(m *request.Member) int {
	return 150 + base64.StdEncoding.EncodedLen(len(m.Body)) + 6*len(m.Reason) + 70*len(m.Steps)
}

func withoutContent(body []byte) ([]byte, error) {
	e, err := event.Decode[event.Enqueued](body)
	if err != nil {
		return nil, err
	}
	e.Text, e.Data = "", ""
	return event.Encode(e)
}
