package dispatcher

import (
	"context"
	"encoding/base64"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/services/dispatcher/state"
	"github.com/trunkline-sms/trunkline/streams/event"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	// Limit: a page of a list has at most 100 groups. Beyond it: 400 in the dialect's form.
	// Used up by: one request. Hurts: only that request. Test: TestRequestsTooLarge.
	maxBrowse = 100
	// Limit: an answer with messages has 6 MiB, as it is sent. Beyond it: a group comes in several answers; a list gets
	// 400 in the dialect's form: ask for fewer, and one group always fits.
	// Used up by: an account with large groups. Hurts: only that account. Test: TestLargeGroupsComeInParts.
	maxAnswer = 6 << 20
	// Limit: for a list 24 MiB of messages are read, or one group. Beyond it: the list gets 400 in the dialect's form:
	// ask for fewer.
	// Used up by: a list of large messages. Hurts: only that request. Test: TestPagesAreBounded.
	maxRead = 24 << 20
	// Limit: 32 messages are read at a time for an answer. Beyond it: the rest is read after them.
	// Used up by: every large answer. Hurts: nobody. Test: TestLargeGroupsComeInParts.
	bodiesAtATime = 32
)

// find looks a group up by its sender's id, or by the id of one of its messages.
func (s *questions) find(ctx context.Context, q request.Find) (request.Found, error) {
	if err := s.ready(ctx); err != nil {
		return request.Found{}, err
	}
	if !q.Older {
		// It may have been accepted a moment ago, and be folded in part.
		if err := s.foldKnown(ctx, q.Account); err != nil {
			return request.Found{}, err
		}
	}
	var got state.Group
	var found bool
	err := s.account(q.Account, func(known state.Account) (err error) {
		got, found, err = known.Find(q.Ref, q.After)
		return err
	})
	if err != nil || !found {
		return request.Found{}, err
	}
	page := []state.Group{got}
	if _, err := s.addBodies(ctx, page, true); err != nil {
		return request.Found{}, err
	}
	return request.Found{Group: &page[0].Group}, nil
}

// browse lists groups.
func (s *questions) browse(ctx context.Context, q request.Browse) (request.Browsed, error) {
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
	var page []state.Group
	err := s.account(q.Account, func(known state.Account) (err error) {
		page, answer.Total, err = known.Browse(q)
		return err
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
		answer.Groups = append(answer.Groups, one.Group)
	}
	return answer, nil
}

var errTooMuch = fault.New(fault.Invalid, "too_much", "The messages are larger than an answer may be: ask for fewer")

// addBodies reads the events of groups. It ends where the answer would become too
// large, and leaves out the rest of that group and the groups after it.
func (s *questions) addBodies(ctx context.Context, page []state.Group, content bool) (whole bool, err error) {
	size, read := 0, 0
	for i := range page {
		g := &page[i]
		for first := 0; first < len(g.Messages); first += bodiesAtATime {
			some := make([]candidate, min(bodiesAtATime, len(g.Messages)-first))
			for j := range some {
				some[j].Place = g.Places[first+j]
			}
			if err := s.bodies.read(ctx, some); err != nil {
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
