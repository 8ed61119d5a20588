package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// A disk that works is faster than that.
	//
	// Limit: the engine has 5 s to answer a commit. Beyond it: the same commit is
	// tried again.
	// Used up by: an engine that is slow. Hurts: all accounts that store in this
	// stream: what comes next waits too. Test: TestCommit_LostAnswer.
	attemptTimeout  = 5 * time.Second
	shortestAttempt = time.Second
	// The streams remember message ids for longer, so a retry finds what was stored.
	//
	// Limit: a commit with an unknown outcome is retried for 20 s. Beyond it: 503
	// outcome_unknown.
	// Used up by: an engine that is away; no account can. Hurts: all accounts that
	// store in this stream wait. Test: TestCommit_OutcomeStaysUnknown.
	retryFor   = 20 * time.Second
	retryPause = 100 * time.Millisecond
	// maxTries: after so many temporary rejections, one message of a shared batch
	// may be the reason, and the batch is split to find it.
	maxTries = 3
	// The engine allows 50 open batches a stream: this leaves some to other processes.
	//
	// Limit: a committer has 16 atomic batches under way at a time. Beyond it: the
	// rest follows when these are answered.
	// Used up by: a commit of many large requests. Hurts: these wait a little. Test:
	// TestPlan.
	maxBatches = 16
)

// groupCommit makes one commit after the other onto a stream.
//
// A commit takes its requests apart into submissions: one atomic batch of all of
// them, or each on its own. It sends them, collects the answers, and judges each
// submission: it is stored or rejected (done), has to be sent again (tryAgain), or
// holds a request that spoils it for the others (split).
//
// A submission whose answer is missing has an unknown outcome. It is uncertain
// until that is resolved, and must not be sent again as if nothing had happened.
// With a fence, the fence is moved first: an earlier attempt can no longer be
// stored then, and the stream tells whether it was. Without one, the message ids
// decide: the engine answers a repeat of a stored submission as a duplicate, and
// the stored messages are looked for.
type groupCommit struct {
	bus         *Bus
	stream      string
	now         func() time.Time
	inbox       string // answers come to inbox + token
	batchPrefix string

	fence *Fence // nil: none
	dirty bool   // a submission was given up and may still be stored, until the fence has moved
	alone bool   // one submission under way at a time: the fence lets no more pass

	sub     *nats.Subscription
	answers chan *nats.Msg
	lost    chan nats.Status // the connection, and with it the answers
	timer   *time.Timer

	slow     bool                   // in this commit: a leader has an earlier attempt under way
	attempts uint64                 // counts up, for tokens
	sent     map[string]*submission // of this commit, by token
	floor    uint64                 // a sequence that the stream had before this commit
	wire     nats.Msg               // the message being sent
}

func (g *groupCommit) open() error {
	g.inbox = g.bus.Conn.NewInbox() + "."
	sub, err := g.bus.Conn.ChanSubscribe(g.inbox+"*", g.answers)
	if err != nil {
		return err
	}
	g.sub = sub
	g.lost = g.bus.Conn.StatusChanged(nats.RECONNECTING, nats.CLOSED)
	g.timer = time.NewTimer(0)
	return nil
}

func (g *groupCommit) close() {
	g.timer.Stop()
	g.bus.Conn.RemoveStatusListener(g.lost)
	g.sub.Unsubscribe() // fails only if the connection is closed, which ends it too
}

// commit stores the requests, answers each of them, and returns how many messages
// it has stored.
func (g *groupCommit) commit(ctx context.Context, reqs []*request, threshold int) (stored int) {
	if g.floor == 0 {
		g.floor = g.lastSequence(ctx)
	}
	floor := g.floor
	deadline, patience := g.now().Add(retryFor), g.bus.patience().commit
	g.slow = false
	if g.fence != nil {
		g.fence.refresh(ctx, g.floor)
	}
	todo := g.plan(reqs, threshold)
	for len(todo) > 0 {
		left, found, known := g.resolve(ctx, todo, floor)
		stored += found
		if todo = left; !known {
			if g.pause(ctx, deadline) {
				continue
			}
			g.giveUp(todo)
			break
		}
		wave, rest := nextWave(todo)
		if g.alone && len(todo) > 0 {
			wave, rest = todo[:1], todo[1:]
		}
		g.forgetLost()
		for _, s := range wave {
			g.attempt(s)
		}
		g.await(wave, min(patience, max(deadline.Sub(g.now()), shortestAttempt)))
		if g.slow { // each try sends everything again, so try less often
			patience = min(2*patience, attemptTimeout)
		}

		var again []*submission
		pause := false
		for _, s := range wave {
			first, next := g.judge(ctx, s, floor)
			switch next {
			case done:
				if first > 0 {
					stored += s.messages
					g.floor = max(g.floor, first+uint64(s.messages)-1)
				}
			case split:
				half := len(s.reqs) / 2
				again = append(again, g.plan(s.reqs[:half], threshold)...)
				again = append(again, g.plan(s.reqs[half:], threshold)...)
			case tryAgain:
				again = append(again, s)
				pause = true
			}
		}
		todo = append(again, rest...)
		if pause && !g.pause(ctx, deadline) {
			g.giveUp(todo)
			break
		}
	}
	clear(g.sent)
	return stored
}

// plan makes one atomic batch of all requests, or one submission of each where
// that costs less.
func (g *groupCommit) plan(reqs []*request, threshold int) []*submission {
	all := newSubmission(reqs)
	if len(reqs) == 1 || all.messages >= threshold || g.alone {
		return []*submission{all}
	}
	submissions := make([]*submission, len(reqs))
	for i := range reqs {
		submissions[i] = newSubmission(reqs[i : i+1])
	}
	return submissions
}

// nextWave splits off as much as may be under way at a time.
func nextWave(todo []*submission) (wave, rest []*submission) {
	batches := 0
	for i, s := range todo {
		if s.messages > 1 {
			if batches++; batches > maxBatches {
				return todo[:i], todo[i:]
			}
		}
	}
	return todo, nil
}

// attempt sends a submission once. Each attempt has a token of its own, to which
// its answer comes. Until there is one, the outcome is unknown, unless it is sure
// that the engine never got the submission.
func (g *groupCommit) attempt(s *submission) {
	g.attempts++
	s.token = strconv.FormatUint(g.attempts, 36)
	s.answer, s.err = ack{}, ErrUnknownOutcome
	g.sent[s.token] = s
	err := s.expect(g.fence)
	if err == nil {
		err = s.send(g)
	}
	s.waiting = err == nil
	if neverArrived(err) || errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, errCutShort) || errors.Is(err, ErrNotStored) {
		s.err = fmt.Errorf("%w: %w", ErrNotStored, err)
	}
}

// await reads answers until all submissions of the wave have one, the time is over,
// or the connection, and with it the answers, is lost.
//
// An answer to an earlier attempt that says "stored" is as good as one to the
// last. An earlier rejection says nothing about the attempt that is under way.
func (g *groupCommit) await(wave []*submission, timeout time.Duration) {
	missing := 0
	for _, s := range wave {
		if s.waiting {
			missing++
		}
	}
	g.timer.Reset(timeout)
	for missing > 0 {
		select {
		case m := <-g.answers:
			s := g.sent[strings.TrimPrefix(m.Subject, g.inbox)]
			if s == nil || !s.waiting {
				continue
			}
			a, err := parseAck(m)
			late := !strings.HasSuffix(m.Subject, "."+s.token)
			if late && (err != nil || a.refusal() != nil) {
				continue
			}
			if s.uncertain && err == nil && a.underWay() {
				g.slow = true
				continue // the leader has an earlier attempt under way, and will answer it or the next one
			}
			s.waiting, s.answer, s.err = false, a, err
			missing--
		case <-g.timer.C:
			return
		case <-g.lost:
			return
		}
	}
}

// next is what to do with a submission after an attempt.
type next int

const (
	done next = iota
	tryAgain
	split
)

// judge answers the submission's requests if their outcome is known, and says what
// to do next. first is the sequence of its first message if it is stored.
func (g *groupCommit) judge(ctx context.Context, s *submission, floor uint64) (first uint64, n next) {
	err := s.err
	if err == nil {
		err = s.answer.refusal()
	}
	if err == nil {
		first = s.answer.Seq - uint64(s.messages) + 1
		s.finish(first, nil)
		return first, done
	}
	if errors.Is(err, ErrUnknownOutcome) {
		s.uncertain, s.err = true, err
		return 0, tryAgain
	}
	s.err = err
	if g.outrun(ctx, s, err) {
		return 0, tryAgain
	}
	if s.answer.Error == nil && !s.answer.Duplicate && !permanent(err) {
		return 0, tryAgain // no engine has seen it
	}
	if s.answer.passing() && (s.uncertain || len(s.reqs) == 1 || len(s.batches) < maxTries) {
		return 0, tryAgain
	}
	// Rejected, but an earlier attempt may have been stored: look for it.
	if s.uncertain {
		first, lookErr := s.find(ctx, g.bus, g.stream, floor)
		switch {
		case lookErr == nil && first > 0:
			s.finish(first, nil)
			return first, done
		case lookErr == nil:
			s.uncertain = false
		case errors.Is(lookErr, errNoID):
			s.err = fmt.Errorf("%w: refused on a repeat: %w", ErrUnknownOutcome, err)
		default:
			return 0, tryAgain
		}
	}
	if len(s.reqs) > 1 && !errors.Is(err, ErrFull) {
		return 0, split
	}
	s.finish(0, s.err)
	return 0, done
}

// pause waits before a retry. It is false where there is to be none: the time is
// over, Run ends, or the connection is closed.
func (g *groupCommit) pause(ctx context.Context, deadline time.Time) bool {
	if !g.now().Before(deadline) {
		return false
	}
	g.timer.Reset(retryPause)
	select {
	case <-g.timer.C:
	case <-ctx.Done():
	case <-g.lost:
	}
	return ctx.Err() == nil && !g.bus.Conn.IsClosed()
}

// forgetLost drops notices that the connection was lost before this attempt.
func (g *groupCommit) forgetLost() {
	for {
		select {
		case <-g.lost:
		default:
			return
		}
	}
}

// giveUp answers submissions that are not tried again.
func (g *groupCommit) giveUp(submissions []*submission) {
	g.fenceUnknown(submissions)
	for _, s := range submissions {
		err := s.err
		switch {
		case s.uncertain:
			err = ErrUnknownOutcome
		case err == nil:
			err = ErrNotStored
		}
		s.finish(0, err)
	}
}

// lastSequence asks the stream for its newest sequence, 0 if it does not answer.
func (g *groupCommit) lastSequence(ctx context.Context) uint64 {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	stream, err := g.bus.JS.Stream(ctx, g.stream)
	if err != nil {
		return 0
	}
	info := stream.CachedInfo()
	g.alone = g.fence != nil && info.Config.Replicas > 1
	return info.State.LastSeq
}
