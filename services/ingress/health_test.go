package ingress

import (
	"context"
	"errors"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
)

// Until another part has answered once, the system is starting; afterwards its absence is a warning.
func TestIngress_asks(t *testing.T) {
	gone := fault.New(fault.Unavailable, "no_responder", "A part of the system does not answer")
	answers := []struct {
		err  error
		want httpx.Status
	}{
		{gone, httpx.Fail},
		{context.DeadlineExceeded, httpx.Fail},
		{fault.New(fault.NotFound, "not_found", "There is no such thing"), httpx.Pass},
		{gone, httpx.Warn},
		{nil, httpx.Pass},
		{errors.New("broken"), httpx.Pass},
	}
	var err error
	check := (&Ingress{}).asks("It answers", func(context.Context) error { return err })
	for i, answer := range answers {
		err = answer.err
		if got := check(t.Context()); got.Status != answer.want || got.ObservedValue == 1 != (answer.want == httpx.Pass) {
			t.Errorf("answer %d: got %+v, want %s", i, got, answer.want)
		}
	}
}
