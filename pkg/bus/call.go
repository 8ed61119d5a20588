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

// timeoutHeader says how long the caller still waits, as a Go duration. It is a
// duration and not a time of day because clocks may differ.
const timeoutHeader = "Trunkline-Timeout"

// Limit: a part has 5 s to answer a call that has no other limit. Beyond it: it
// counts as silent: the call fails with no_answer.
// Used up by: a part that is away. Hurts: the requests that need that part. Test:
// TestCall_Silent.
const callTimeout = 5 * time.Second

// Call sends q to a handler of subject and returns its answer. If the handler
// returned a fault, that is the error. Without a handler, or without an answer
// before ctx ends (5 s if it has no deadline), the error is fault.Unavailable.
// With its code "no_answer" the handler may have done its work all the same.
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
