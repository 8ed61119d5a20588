package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// timeoutHeader carries how long the caller still waits, as a Go duration: a
// span, not a point in time, so that clocks need not agree.
const timeoutHeader = "Trunkline-Timeout"

// callTimeout ends a call whose context has no deadline. Used up by a part
// that is away: who asks is told so.
const callTimeout = 5 * time.Second

// Call sends q to a handler of subject and gives its answer. A fault the
// handler returned is the error. Without a handler, or without an answer
// before ctx ends (5 s if it has no deadline), the error is a fault
// Unavailable; after "no_answer" the handler may have done its work.
func Call[A, Q any](ctx context.Context, b *Bus, subject string, q Q) (A, error) {
	var a A
	data, err := json.Marshal(q)
	if err != nil {
		return a, fmt.Errorf("encode request to %s: %w", subject, err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	deadline, _ := ctx.Deadline()
	answer, err := b.Conn.RequestMsgWithContext(ctx, &nats.Msg{
		Subject: subject,
		Header:  nats.Header{timeoutHeader: {time.Until(deadline).String()}},
		Data:    data,
	})
	if err != nil {
		return a, callFault(subject, err)
	}
	if answer.Header.Get(micro.ErrorCodeHeader) != "" {
		f := new(fault.Error)
		if err := json.Unmarshal(answer.Data, f); err != nil {
			return a, fmt.Errorf("decode error of %s: %w", subject, err)
		}
		return a, f
	}
	if err := json.Unmarshal(answer.Data, &a); err != nil {
		return a, fmt.Errorf("decode answer of %s: %w", subject, err)
	}
	return a, nil
}

func callFault(subject string, err error) error {
	code := "no_answer"
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		code = "no_responder"
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionClosed):
		code = "no_connection"
	case errors.Is(err, nats.ErrMaxPayload):
		return fault.New(fault.TooLarge, "request_too_large", "The request is too large").With(err)
	}
	return fault.New(fault.Unavailable, code, "A part of the system does not answer").With(fmt.Errorf("call %s: %w", subject, err))
}
