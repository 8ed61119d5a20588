package bus_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

// expecting makes a message that expects the last sequence of another subject.
func expecting(subject, body, fence string, last uint64) *nats.Msg {
	m := message(subject, body, body)
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(last, 10))
	m.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, fence)
	return m
}

// publishRaw publishes as one atomic batch, and gives the engine's sequence and error code.
func publishRaw(t *testing.T, b *bus.Bus, msgs ...*nats.Msg) (seq uint64, code int) {
	t.Helper()
	for i, m := range msgs[:len(msgs)-1] {
		batched(m, msgs[0], i+1)
		if err := b.Conn.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	last := msgs[len(msgs)-1]
	if len(msgs) > 1 {
		batched(last, msgs[0], len(msgs))
		last.Header.Set("Nats-Batch-Commit", "1")
	}
	answer, err := b.Conn.RequestMsg(last, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var ack struct {
		Seq   uint64 `json:"seq"`
		Error *struct {
			Code int `json:"err_code"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		t.Fatal(err)
	}
	if ack.Error != nil {
		return 0, ack.Error.Code
	}
	return ack.Seq, 0
}

func batched(m, first *nats.Msg, n int) {
	m.Header.Set("Nats-Batch-Id", "batch-"+string(first.Data))
	m.Header.Set("Nats-Batch-Sequence", fmt.Sprint(n))
}

// What the fence of arrival rests on: the engine compares the last sequence of a subject which is not the message's own,
// for a message alone and anywhere in an atomic batch, beside a message that expects something of its own subject.
func TestEngine_ExpectsLastOfAnotherSubject(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus.Bus) {
		const fence, wrong = "s.fence", 10071
		mark := func(body string) *nats.Msg {
			m := message("s.key."+body, body, body)
			m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
			return m
		}
		first, code := publishRaw(t, b, message(fence, "", "move 1"))
		if code != 0 {
			t.Fatalf("move: %d", code)
		}
		plain := func(body string) *nats.Msg { return message("s.a", body, body) }
		with := func(body string, last uint64) *nats.Msg { return expecting("s.a", body, fence, last) }
		for i, step := range []struct {
			msgs []*nats.Msg
			want int
		}{
			{[]*nats.Msg{with("alone", first)}, 0},
			{[]*nats.Msg{with("alone, another", first+7)}, wrong},
			{[]*nats.Msg{with("alone, none", 0)}, wrong},
			{[]*nats.Msg{with("first", first), plain("b"), plain("c")}, 0},
			{[]*nats.Msg{plain("d"), with("middle", first), plain("e")}, 0},
			{[]*nats.Msg{mark("k"), with("second", first), plain("f")}, 0},
			{[]*nats.Msg{with("each 1", first), with("each 2", first)}, 0},
			{[]*nats.Msg{with("wrong first", first-1), plain("g")}, wrong},
			{[]*nats.Msg{plain("h"), plain("i"), with("wrong last", first+1)}, wrong},
			{[]*nats.Msg{mark("l"), with("wrong second", first+1)}, wrong},
		} {
			if _, code := publishRaw(t, b, step.msgs...); code != step.want {
				t.Errorf("step %d: got %d, want %d", i, code, step.want)
			}
		}
		before := len(bodies(t, b))
		if _, code := publishRaw(t, b, message(fence, "", "move 2")); code != 0 {
			t.Fatalf("move: %d", code)
		}
		if _, code := publishRaw(t, b, with("late", first)); code != wrong {
			t.Errorf("late: got %d, want %d", code, wrong)
		}
		if _, code := publishRaw(t, b, plain("j"), with("late in a batch", first)); code != wrong {
			t.Errorf("late in a batch: got %d, want %d", code, wrong)
		}
		if got := len(bodies(t, b)); got != before+1 {
			t.Errorf("got %d messages, want %d: what was late left something behind", got, before+1)
		}
	})
}

// How many that expect the same fence may be under way together: on one engine any number, on three one.
func TestEngine_OneFenceUnderWay(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus.Bus) {
		replicated := strings.HasSuffix(t.Name(), "/three")
		seq, _ := publishRaw(t, b, message("s.fence", "", "move"))
		const n = 200
		answers := make(chan *nats.Msg, n)
		sub, err := b.Conn.ChanSubscribe(b.Conn.NewInbox(), answers)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			m := expecting("s.a", fmt.Sprint("m", i), "s.fence", seq)
			m.Reply = sub.Subject
			if err := b.Conn.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
		}
		refused := 0
		for range n {
			if a := <-answers; bytes.Contains(a.Data, []byte(`"err_code":10164`)) {
				refused++
			}
		}
		if (refused > 0) != replicated {
			t.Errorf("%d of %d were refused", refused, n)
		}
	})
}
