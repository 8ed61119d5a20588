package ingress

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/httpx"
	"github.com/trunkline-sms/trunkline/pkg/projection"
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

// disk is what a disk would say.
type disk struct {
	used           int
	room, writable error
}

func (d disk) Used() int       { return d.used }
func (d disk) Room() error     { return d.room }
func (d disk) Writable() error { return d.writable }

func TestIngress_disk(t *testing.T) {
	for _, test := range []struct {
		disk   disk
		status httpx.Status
		says   string
	}{
		{disk{used: 69}, httpx.Pass, "Of the disk"},
		{disk{used: 70}, httpx.Warn, "Of the disk"},
		{disk{used: 20, room: bus.ErrFull}, httpx.Warn, "senders get 503, phones are served"},
		{disk{used: 99, room: bus.ErrFull, writable: bus.ErrFull}, httpx.Fail, "nothing can be stored until there is room"},
		{disk{used: 20, room: bus.ErrNotStored, writable: bus.ErrNotStored}, httpx.Fail, "read-only or fails"},
	} {
		got := (&Ingress{deps: Deps{Disk: test.disk}}).disk(t.Context())
		if got.Status != test.status || got.ObservedValue != test.disk.used || !strings.Contains(got.Description, test.says) {
			t.Errorf("%+v: got %+v, want %s that says %q", test.disk, got, test.status, test.says)
		}
	}
}

// A part that cannot write its projection fails, and says why, also when it has answered before.
func TestIngress_asks_Unwritten(t *testing.T) {
	var err error
	check := (&Ingress{}).asks("It answers", func(context.Context) error { return err })
	if got := check(t.Context()); got.Status != httpx.Pass {
		t.Errorf("got %+v, want it to pass", got)
	}
	err = fault.New(fault.Unavailable, projection.Unwritten, "The disk is full")
	if got := check(t.Context()); got.Status != httpx.Fail || got.Description != "The disk is full" {
		t.Errorf("got %+v, want it to fail with what the part says", got)
	}
}
