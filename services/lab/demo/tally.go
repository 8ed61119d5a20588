package demo

import (
	"context"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/schollz/progressbar/v3"

	"github.com/trunkline-sms/trunkline/services/lab/phone"
)

// tally knows what became of every message.
type tally struct {
	bar *progressbar.ProgressBar

	mu      sync.Mutex
	records map[string]*record
	posts   *hdrhistogram.Histogram // microseconds from request to answer
	through *hdrhistogram.Histogram // microseconds from accepted to reported
	open    int                     // accepted or to be accepted, and not reported
	moved   chan struct{}           // has a token when something happened
	accept  span
	deliver span
}

// record is one message. A phone may have it before its sender has the answer.
type record struct {
	accepted time.Time
	reported time.Time
	pulls    int
	status   int
}

// span is from when to when something happened.
type span struct{ from, to time.Time }

func (s *span) add(from, to time.Time) {
	if s.from.IsZero() || from.Before(s.from) {
		s.from = from
	}
	if to.After(s.to) {
		s.to = to
	}
}

// rate is how many a second n are.
func (s span) rate(n int) float64 {
	if took := s.to.Sub(s.from).Seconds(); took > 0 {
		return float64(n) / took
	}
	return 0
}

const (
	longest = int64(time.Hour / time.Microsecond)
	digits  = 3
)

func newTally(messages int, bar *progressbar.ProgressBar) *tally {
	return &tally{
		bar:     bar,
		open:    messages,
		records: make(map[string]*record, messages),
		posts:   hdrhistogram.New(1, longest, digits),
		through: hdrhistogram.New(1, longest, digits),
		moved:   make(chan struct{}, 1),
	}
}

func (t *tally) record(hash string) *record {
	r := t.records[hash]
	if r == nil {
		r = new(record)
		t.records[hash] = r
	}
	return r
}

// accepted says that a request begun then was answered now with these messages.
func (t *tally) accepted(hashes []string, begun time.Time) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accept.add(begun, now)
	_ = t.posts.RecordValue(now.Sub(begun).Microseconds())
	for _, hash := range hashes {
		r := t.record(hash)
		r.accepted = now
		t.count(r)
	}
	t.tell()
}

// pulled says that a phone was handed these messages.
func (t *tally) pulled(hashes []string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deliver.add(now, now)
	for _, hash := range hashes {
		t.record(hash).pulls++
	}
	t.tell()
}

// reported says that the server took these outcomes.
func (t *tally) reported(outcomes []phone.Outcome) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.deliver.add(now, now)
	for _, o := range outcomes {
		r := t.record(o.Hash)
		if r.reported.IsZero() {
			r.reported, r.status = now, o.Status
			t.count(r)
		}
	}
	t.tell()
}

// count counts a message that is both accepted and reported.
func (t *tally) count(r *record) {
	if r.accepted.IsZero() || r.reported.IsZero() {
		return
	}
	t.open--
	_ = t.through.RecordValue(max(r.reported.Sub(r.accepted), 0).Microseconds())
	_ = t.bar.Add(1)
}

func (t *tally) tell() {
	select {
	case t.moved <- struct{}{}:
	default:
	}
}

// await returns when every message is settled, or nothing has happened for so
// long that nothing will.
func (t *tally) await(ctx context.Context, idle time.Duration) {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for {
		t.mu.Lock()
		open := t.open
		t.mu.Unlock()
		if open == 0 {
			return
		}
		select {
		case <-t.moved:
			timer.Reset(idle)
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// result sums up. Nothing is recorded afterwards.
func (t *tally) result() Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Result{Posts: t.posts, Through: t.through}
	reported := 0
	for _, m := range t.records {
		if !m.accepted.IsZero() {
			r.Accepted++
		}
		if m.pulls > 1 {
			r.Doubled++
		}
		switch {
		case m.reported.IsZero():
			r.Lost++ // accepted or not: somebody waits for it
			continue
		case m.status == phone.Success:
			r.Delivered++
		default:
			r.Failed++
		}
		reported++
	}
	r.AcceptRate, r.DeliverRate = t.accept.rate(r.Accepted), t.deliver.rate(reported)
	return r
}
