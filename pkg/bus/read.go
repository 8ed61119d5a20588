package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	leaderGet = "$JS.API.STREAM.MSG.GET."
	directGet = "$JS.API.DIRECT.GET."

	codeNoMessage = 10037
	statusNotHere = "404"
)

// getRequest asks for one message.
type getRequest struct {
	Seq           uint64 `json:"seq,omitempty"`
	LastBySubject string `json:"last_by_subj,omitempty"`
	// NextBySubject asks for the first message of a subject at Seq or above.
	NextBySubject string `json:"next_by_subj,omitempty"`
}

type getAnswer struct {
	Error   *jetstream.APIError `json:"error"`
	Message *struct {
		Subject string    `json:"subject"`
		Seq     uint64    `json:"seq"`
		Header  []byte    `json:"hdrs"`
		Data    []byte    `json:"data"`
		Time    time.Time `json:"time"`
	} `json:"message"`
}

// LastForSubject reads the newest message of a subject. It asks the stream's
// leader, which has everything that was acknowledged before. The error is
// ErrNoMessage where there is none.
func (b *Bus) LastForSubject(ctx context.Context, stream, subject string) (*jetstream.RawStreamMsg, error) {
	msg, err := b.fromLeader(ctx, stream, getRequest{LastBySubject: subject})
	if err != nil {
		return nil, fmt.Errorf("read last message of %s: %w", subject, err)
	}
	return msg, nil
}

// LastForSubjects gives the sequence of the newest message of all the subjects, 0
// where there is none.
func (b *Bus) LastForSubjects(ctx context.Context, stream string, subjects ...string) (uint64, error) {
	var last uint64
	for _, subject := range subjects {
		m, err := b.LastForSubject(ctx, stream, subject)
		switch {
		case err == nil:
			last = max(last, m.Sequence)
		case !errors.Is(err, ErrNoMessage):
			return 0, err
		}
	}
	return last, nil
}

// Get reads the message of a sequence, from any replica that has it. The error
// is ErrNoMessage where the leader has none.
func (b *Bus) Get(ctx context.Context, stream string, seq uint64) (*jetstream.RawStreamMsg, error) {
	near, cancel := context.WithTimeout(ctx, b.patience().ask)
	msg, err := b.direct(near, stream, getRequest{Seq: seq})
	cancel()
	// A replica may lag or stand still, and some streams do not allow direct reads.
	if errors.Is(err, ErrNoMessage) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		msg, err = b.fromLeader(ctx, stream, getRequest{Seq: seq})
	}
	if err != nil {
		return nil, fmt.Errorf("read message %d of %s: %w", seq, stream, err)
	}
	return msg, nil
}

// FirstAfter reads the first message of subject after a sequence, from the
// stream's leader. The error is ErrNoMessage where there is none.
func (b *Bus) FirstAfter(ctx context.Context, stream, subject string, seq uint64) (*jetstream.RawStreamMsg, error) {
	msg, err := b.fromLeader(ctx, stream, getRequest{Seq: seq + 1, NextBySubject: subject})
	if err != nil {
		return nil, fmt.Errorf("read the next message of %s: %w", subject, err)
	}
	return msg, nil
}

// Next reads the first message of subject, which may be a pattern, at seq or
// after it. It asks any replica, and one that lags may not have the message yet.
// The error is ErrNoMessage where there is none. The stream must allow direct
// reads.
func (b *Bus) Next(ctx context.Context, stream, subject string, seq uint64) (*jetstream.RawStreamMsg, error) {
	msg, err := b.direct(ctx, stream, getRequest{Seq: seq, NextBySubject: subject})
	if err != nil {
		return nil, fmt.Errorf("read the next message of %s: %w", subject, err)
	}
	return msg, nil
}

func (b *Bus) fromLeader(ctx context.Context, stream string, r getRequest) (*jetstream.RawStreamMsg, error) {
	answer, err := b.ask(ctx, leaderGet+stream, r)
	if err != nil {
		return nil, err
	}
	var a getAnswer
	if err := json.Unmarshal(answer.Data, &a); err != nil {
		return nil, err
	}
	if a.Error != nil {
		if a.Error.ErrorCode == codeNoMessage {
			return nil, ErrNoMessage
		}
		return nil, a.Error
	}
	if a.Message == nil {
		return nil, errors.New("answer holds no message")
	}
	msg := &jetstream.RawStreamMsg{Subject: a.Message.Subject, Sequence: a.Message.Seq, Data: a.Message.Data, Time: a.Message.Time}
	if len(a.Message.Header) > 0 {
		if msg.Header, err = nats.DecodeHeadersMsg(a.Message.Header); err != nil {
			return nil, err
		}
	}
	return msg, nil
}

func (b *Bus) direct(ctx context.Context, stream string, r getRequest) (*jetstream.RawStreamMsg, error) {
	answer, err := b.ask(ctx, directGet+stream, r)
	if err != nil {
		return nil, err
	}
	h := answer.Header
	if status := h.Get("Status"); status != "" && len(answer.Data) == 0 {
		if status == statusNotHere {
			return nil, ErrNoMessage
		}
		return nil, fmt.Errorf("direct read: %s %s", status, h.Get("Description"))
	}
	msg := &jetstream.RawStreamMsg{Subject: h.Get(jetstream.SubjectHeader), Header: h, Data: answer.Data}
	if msg.Sequence, err = strconv.ParseUint(h.Get(jetstream.SequenceHeader), 10, 64); err != nil {
		return nil, err
	}
	if msg.Time, err = time.Parse(time.RFC3339Nano, h.Get(jetstream.TimeStampHeaer)); err != nil {
		return nil, err
	}
	// These headers belong to the answer, not to the message.
	for _, added := range []string{jetstream.StreamHeader, jetstream.SubjectHeader, jetstream.SequenceHeader, jetstream.TimeStampHeaer} {
		h.Del(added)
	}
	return msg, nil
}

// ask sends a request to the engine, and sends it again while there is no answer.
// It takes the first answer to any of them.
func (b *Bus) ask(ctx context.Context, subject string, r getRequest) (*nats.Msg, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	patience := b.patience()
	ctx, cancel := context.WithTimeout(ctx, patience.asked)
	defer cancel()
	if patience.ask == patience.asked { // one engine: nobody else could answer
		return b.Conn.RequestWithContext(ctx, subject, data)
	}
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel() // runs before Wait
	type answer struct {
		msg *nats.Msg
		err error
	}
	answers := make(chan answer, patience.asked/patience.ask+1)
	again := time.NewTicker(patience.ask)
	defer again.Stop()
	for {
		asking.Go(func() {
			msg, err := b.Conn.RequestWithContext(ctx, subject, data)
			answers <- answer{msg, err}
		})
		select {
		case a := <-answers:
			return a.msg, a.err
		case <-again.C:
		}
	}
}
