package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

func refusedBy(code jetstream.ErrorCode, description string) ack {
	return ack{Error: &jetstream.APIError{Code: 400, ErrorCode: code, Description: description}}
}

// What each of the engine's refusals means. The codes are the engine's, so they are written out.
func TestRefusals(t *testing.T) {
	for code, want := range map[jetstream.ErrorCode]struct {
		reason  error
		passing bool
	}{
		10002: {ErrFull, false}, 10023: {ErrFull, false}, 10028: {ErrFull, false}, 10047: {ErrFull, false}, 10122: {ErrFull, false},
		10201: {ErrDuplicate, false}, 10158: {ErrDuplicate, true},
		10008: {ErrNotStored, true}, 10118: {ErrNotStored, true}, 10167: {ErrNotStored, true}, 10176: {ErrNotStored, true}, 10210: {ErrNotStored, true},
		10077: {ErrNotStored, false}, 10060: {ErrNotStored, false}, 10199: {ErrNotStored, false}, 10001: {ErrNotStored, false},
	} {
		a := refusedBy(code, "said by the engine")
		err := a.refusal()
		if !errors.Is(err, want.reason) || !errors.Is(err, ErrNotStored) {
			t.Errorf("%d: got %v, want %v", code, err, want.reason)
		}
		for _, other := range []error{ErrFull, ErrDuplicate} {
			if !errors.Is(want.reason, other) && errors.Is(err, other) {
				t.Errorf("%d: got %v, which is %v too", code, err, other)
			}
		}
		if a.passing() != want.passing || a.underWay() != (code == 10158) {
			t.Errorf("%d: got passing %t, under way %t", code, a.passing(), a.underWay())
		}
	}
	for description, full := range map[string]bool{"maximum bytes exceeded": true, "maximum messages exceeded": true, "message size exceeds maximum allowed": false} {
		if err := refusedBy(10077, description).refusal(); errors.Is(err, ErrFull) != full {
			t.Errorf("%s: got %v", description, err)
		}
	}
	var wrong *WrongLast
	if err := refusedBy(10071, "wrong last sequence: 17").refusal(); !errors.As(err, &wrong) || wrong.Last != 17 || wrong.UnderWay {
		t.Errorf("got %v", err)
	}
	if got := wrong.Error(); !strings.Contains(got, "17") || strings.Contains(got, "under way") {
		t.Errorf("it says %q", got)
	}
	if err := refusedBy(10164, "wrong last sequence").refusal(); !errors.As(err, &wrong) || wrong.Last != 0 || !wrong.UnderWay {
		t.Errorf("got %v", err)
	}
	if got := wrong.Error(); !strings.Contains(got, "under way") || !errors.Is(wrong, ErrNotStored) {
		t.Errorf("it says %q", got)
	}
	for description, want := range map[string]uint64{"wrong last sequence: 0": 0, "wrong last sequence": 0, "x: y": 0, ": 18446744073709551615": 1<<64 - 1, ": 99999999999999999999": 0} {
		if got := lastNamed(description); got != want {
			t.Errorf("%q: got %d, want %d", description, got, want)
		}
	}
	if err := (ack{Seq: 1, Duplicate: true}).refusal(); !errors.Is(err, ErrDuplicate) {
		t.Errorf("a duplicate: got %v", err)
	}
	if stored := (ack{Seq: 1}); stored.refusal() != nil || stored.passing() || stored.underWay() {
		t.Errorf("what is stored: got %v", stored.refusal())
	}
}

func TestParseAck(t *testing.T) {
	for name, test := range map[string]struct {
		data, status string
		want         error
		seq          uint64
	}{
		"stored":        {`{"stream":"S","seq":7}`, "", nil, 7},
		"refused":       {`{"error":{"code":400,"err_code":10071}}`, "", nil, 0},
		"nobody":        {"", "503", ErrNotStored, 0},
		"nothing":       {"", "", ErrUnknownOutcome, 0},
		"another word":  {"", "404", ErrUnknownOutcome, 0},
		"no JSON":       {"?", "503", ErrUnknownOutcome, 0},
		"no sequence":   {`{"stream":"S"}`, "", ErrUnknownOutcome, 0},
		"partly other":  {`{"seq":5,"duplicate":"x"}`, "", ErrUnknownOutcome, 5},
		"of other form": {`{"seq":"x"}`, "", ErrUnknownOutcome, 0},
	} {
		m := &nats.Msg{Data: []byte(test.data), Header: nats.Header{}}
		if test.status != "" {
			m.Header.Set("Status", test.status)
		}
		a, err := parseAck(m)
		if !errors.Is(err, test.want) || a.Seq != test.seq || !errors.Is(test.want, ErrNotStored) && errors.Is(err, ErrNotStored) {
			t.Errorf("%s: got %+v, %v, want %v", name, a, err, test.want)
		}
	}
}

func TestKindsOfErrors(t *testing.T) {
	api := func(status int, code jetstream.ErrorCode) error {
		return &jetstream.APIError{Code: status, ErrorCode: code}
	}
	for _, test := range []struct {
		err                           error
		never, permanent, away, clash bool
	}{
		{nats.ErrNoResponders, true, false, true, false},
		{nats.ErrReconnectBufExceeded, true, false, true, false},
		{nats.ErrMaxPayload, true, true, false, false},
		{nats.ErrBadSubject, true, true, false, false},
		{nats.ErrConnectionClosed, false, false, true, false},
		{nats.ErrTimeout, false, false, true, false},
		{nats.ErrDisconnected, false, false, true, false},
		{nats.ErrConnectionReconnecting, false, false, true, false},
		{nats.ErrNoServers, false, false, true, false},
		{ErrNoConsumer, false, false, true, false},
		{ErrNoAnswer, false, false, true, false},
		{errors.New("another"), false, false, false, false},
		{api(400, 10071), false, false, false, true},
		{api(400, 10164), false, false, false, true},
		{api(400, 10060), false, false, false, false},
		{api(400, 10074), false, false, true, false},
		{api(400, 10008), false, false, true, false},
		{api(503, 10060), false, false, true, false},
	} {
		err := fmt.Errorf("wrapped: %w", test.err)
		if neverArrived(err) != test.never || permanent(err) != test.permanent || Away(err) != test.away || IsConflict(err) != test.clash {
			t.Errorf("%v: got never arrived %t, permanent %t, away %t, conflict %t",
				test.err, neverArrived(err), permanent(err), Away(err), IsConflict(err))
		}
		if sent := sendError(err); errors.Is(sent, ErrNotStored) != test.never || errors.Is(sent, ErrUnknownOutcome) == test.never || !errors.Is(sent, test.err) {
			t.Errorf("%v, of a publish: got %v", test.err, sent)
		}
	}
	for err, code := range map[error]string{
		nats.ErrNoResponders: "no_responder", nats.ErrReconnectBufExceeded: "no_connection", nats.ErrConnectionClosed: "no_connection",
		nats.ErrMaxPayload: "request_too_large", context.DeadlineExceeded: "no_answer",
	} {
		kind := fault.Unavailable
		if code == "request_too_large" {
			kind = fault.TooLarge
		}
		if got := fault.As(callFault("s", err)); got.Code != code || got.Kind != kind || !errors.Is(got, err) {
			t.Errorf("%v, of a call: got %s %s", err, got.Kind, got.Code)
		}
	}
	for _, test := range []struct {
		status, description string
		want                error
		none                bool
	}{
		{"404", "No Messages", nil, true}, {"408", "Request Timeout", nil, true},
		{"503", "", ErrNoConsumer, false}, {"409", "Consumer Deleted", ErrNoConsumer, false}, {"409", "Exceeded MaxWaiting", nil, false},
	} {
		got := ended(test.status, test.description)
		if (got == nil) != test.none || test.want != nil && !errors.Is(got, test.want) || test.want == nil && errors.Is(got, ErrNoConsumer) {
			t.Errorf("a fetch ended by %s %s: got %v", test.status, test.description, got)
		}
	}
	if parseTimeout("20ms") != 20*time.Millisecond || parseTimeout("") != callTimeout || parseTimeout("soon") != callTimeout {
		t.Error("a call's timeout is read wrongly")
	}
}

// What is taken from the queue together, and what waits for the next commit.
func TestCommitter_take(t *testing.T) {
	queued := func(sizes ...int) *Committer {
		c := NewCommitter(&Bus{}, "S", CommitterOptions{MaxBatch: 4, MaxWaiting: 100 << 20})
		for _, size := range sizes {
			if err := c.put(&request{msgs: make([]*nats.Msg, 2), bytes: size, done: make(chan outcome, 1)}); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	for name, test := range map[string]struct {
		sizes []int
		want  int
	}{
		"as many as fit":          {[]int{1, 1, 1}, 2},
		"as many bytes as fit":    {[]int{maxBatchBytes - 1, 1}, 2},
		"one byte more":           {[]int{maxBatchBytes, 1}, 1},
		"one too large by itself": {[]int{maxBatchBytes + 1, 1}, 1},
		"none":                    {nil, 0},
	} {
		c := queued(test.sizes...)
		waiting := c.queue.waiting
		taken := c.take(nil)
		if len(taken) != test.want || c.queue.count() != len(test.sizes)-test.want {
			t.Errorf("%s: got %d, and %d wait, want %d", name, len(taken), c.queue.count(), test.want)
		}
		for _, r := range taken {
			waiting -= int64(r.bytes)
			if !r.taken || c.withdraw(r) {
				t.Errorf("%s: what was taken can be withdrawn", name)
			}
		}
		if c.queue.waiting != waiting {
			t.Errorf("%s: got %d bytes that wait, want %d", name, c.queue.waiting, waiting)
		}
	}
	c := queued(10, 10, 10)
	if !c.withdraw(c.queue.next()) || c.queue.waiting != 20 {
		t.Errorf("got %d bytes after one of three was withdrawn, want 20", c.queue.waiting)
	}
	if taken := c.take(nil); len(taken) != 2 || c.queue.count() != 0 || c.queue.waiting != 0 {
		t.Errorf("got %d, and %d wait, want the two that were not withdrawn", len(taken), c.queue.count())
	}
	// The bound is for those who come when others wait: one alone may be larger.
	c = NewCommitter(&Bus{}, "S", CommitterOptions{MaxWaiting: 10})
	for i, test := range []struct {
		bytes int
		want  error
	}{{1, nil}, {9, nil}, {1, ErrBusy}} {
		if err := c.put(&request{bytes: test.bytes}); !errors.Is(err, test.want) {
			t.Errorf("request %d: got %v, want %v", i, err, test.want)
		}
	}
	c = NewCommitter(&Bus{}, "S", CommitterOptions{MaxWaiting: 10})
	if first, second := c.put(&request{bytes: 1}), c.put(&request{bytes: 10}); first != nil || !errors.Is(second, ErrBusy) {
		t.Errorf("a large one beside one byte: got %v, %v, want ErrBusy", first, second)
	}
	c = NewCommitter(&Bus{}, "S", CommitterOptions{MaxWaiting: 10})
	if err := c.put(&request{bytes: 11}); err != nil {
		t.Errorf("one alone: got %v", err)
	}
	if err := c.put(&request{}); !errors.Is(err, ErrBusy) {
		t.Errorf("beside one that is larger than all: got %v", err)
	}
}

// Owners take turns, and none has more of the room than it leaves to others.
func TestCommitter_Owners(t *testing.T) {
	c := NewCommitter(&Bus{}, "S", CommitterOptions{MaxBatch: 1, MaxWaiting: 1000})
	put := func(owner string, bytes int) error {
		return c.put(&request{msgs: make([]*nats.Msg, 1), owner: owner, bytes: bytes, done: make(chan outcome, 1)})
	}
	for i := range 5 {
		if err := put("greedy", 100); err != nil {
			t.Fatalf("request %d of half the room: got %v", i, err)
		}
	}
	if err := put("greedy", 1); !errors.Is(err, ErrBusy) {
		t.Errorf("more than half of the room: got %v, want ErrBusy", err)
	}
	for _, owner := range []string{"shop", "clinic"} {
		for range 2 {
			if err := put(owner, 10); err != nil {
				t.Errorf("%s beside it: got %v", owner, err)
			}
		}
	}
	if err := put("large", 460); err != nil {
		t.Errorf("the first of another that fits: got %v", err)
	}
	if err := put("late", 1); !errors.Is(err, ErrBusy) {
		t.Errorf("beyond all of the room: got %v, want ErrBusy", err)
	}
	if !c.withdraw(c.queue.lines["clinic"].requests[0]) {
		t.Error("it cannot be withdrawn")
	}
	var order []string
	for taken := c.take(nil); len(taken) > 0; taken = c.take(nil) {
		order = append(order, taken[0].owner)
	}
	want := []string{"greedy", "shop", "clinic", "large", "greedy", "shop", "greedy", "greedy", "greedy"}
	if !slices.Equal(order, want) || c.queue.waiting != 0 || len(c.queue.lines) != 0 || c.queue.count() != 0 {
		t.Errorf("got %v and %d bytes, want %v and none", order, c.queue.waiting, want)
	}
	// An owner's own keep their order, also while more come.
	number := 0
	for i := range 100 {
		for range 3 {
			if err := c.put(&request{msgs: make([]*nats.Msg, 1), owner: "shop", expects: uint64(number)}); err != nil {
				t.Fatal(err)
			}
			number++
		}
		for k := range 2 {
			if got := c.take(nil)[0].expects; got != uint64(2*i+k) {
				t.Fatalf("got request %d, want %d", got, 2*i+k)
			}
		}
	}
}

// What waits costs no memory beside itself.
func TestCommitter_QueueAllocates(t *testing.T) {
	c := NewCommitter(&Bus{}, "S", CommitterOptions{MaxWaiting: 1000})
	var all [30]request
	for i := range all {
		all[i] = request{msgs: make([]*nats.Msg, 1), owner: []string{"shop", "clinic", "bank"}[i%3], bytes: 1}
	}
	var taken []*request
	if got := testing.AllocsPerRun(100, func() {
		for i := range all {
			if err := c.put(&all[i]); err != nil {
				t.Fatal(err)
			}
		}
		for taken = c.take(taken[:0]); len(taken) > 0; taken = c.take(taken[:0]) {
		}
	}); got > 0 {
		t.Errorf("got %v allocations for 30 requests of 3 owners", got)
	}
}

func TestCommitterOptions(t *testing.T) {
	given := NewCommitter(&Bus{}, "S", CommitterOptions{Threshold: 1, MaxBatch: 1, MaxWaiting: 1}).o
	if given.Threshold != 1 || given.MaxBatch != 1 || given.MaxWaiting != 1 {
		t.Errorf("got %+v, want what was given", given)
	}
	none := NewCommitter(&Bus{}, "S", CommitterOptions{}).o
	if none.Threshold != 16 || none.MaxBatch != 1000 || none.MaxWaiting != 64<<20 || none.Observe == nil || none.Now == nil {
		t.Errorf("got %+v, want the defaults", none)
	}
	none.Observe(1, 1)
}

func TestPlan(t *testing.T) {
	reqs := func(sizes ...int) (all []*request) {
		for _, n := range sizes {
			all = append(all, &request{msgs: make([]*nats.Msg, n)})
		}
		return all
	}
	for name, test := range map[string]struct {
		sizes       []int
		submissions []int
	}{
		"below":     {[]int{2, 3}, []int{2, 3}},
		"at it":     {[]int{3, 3}, []int{6}},
		"one":       {[]int{2}, []int{2}},
		"one large": {[]int{9}, []int{9}},
	} {
		var got []int
		for _, u := range (&groupCommit{}).plan(reqs(test.sizes...), 6) {
			got = append(got, u.messages)
		}
		if fmt.Sprint(got) != fmt.Sprint(test.submissions) {
			t.Errorf("%s: got submissions of %v, want %v", name, got, test.submissions)
		}
	}
	// Singles are under way together, atomic batches only so many.
	var submissions []*submission
	for range maxBatches + 3 {
		submissions = append(submissions, &submission{messages: 1}, &submission{messages: 2})
	}
	wave, rest := nextWave(submissions)
	if len(wave) != 2*maxBatches+1 || len(rest) != 5 {
		t.Errorf("got a wave of %d and %d for later, want %d batches in it", len(wave), len(rest), maxBatches)
	}
	if wave, rest := nextWave(rest); len(wave) != 5 || len(rest) != 0 {
		t.Errorf("then got %d and %d, want all", len(wave), len(rest))
	}
}
