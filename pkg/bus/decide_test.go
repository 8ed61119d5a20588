package bus_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
)

// maker decides on subjects below s.d, and knows what it was told to await.
type maker struct {
	*testing.T
	bus   *bus.Bus
	asked int
	known uint64
	lost  int // proposals that another outran
}

func newMaker(t *testing.T) *maker {
	m := &maker{T: t, bus: bustest.New(t)}
	makeStream(t, m.bus)
	m.known = m.stores("before")
	return m
}

// stores puts decisions into the stream, as another maker does.
func (m *maker) stores(bodies ...string) (last uint64) {
	m.Helper()
	for _, body := range bodies {
		ack, err := m.bus.JS.PublishMsg(m.Context(), message("s.d.one", "", body))
		if err != nil {
			m.Fatal(err)
		}
		last = ack.Sequence
	}
	return last
}

func (m *maker) decide(ctx context.Context) error {
	d := bus.Decisions{
		Bus: m.bus, Stream: stream, Subject: "s.d.*", Outrun: func() { m.lost++ },
		Await: func(_ context.Context, seq uint64) error { m.known = max(m.known, seq); return nil },
	}
	return d.Decide(ctx, func() (*nats.Msg, uint64, error) {
		m.asked++
		return message("s.d.one", "", fmt.Sprint("ours ", m.asked)), m.known, nil
	})
}

// What may be answered, and what becomes of a decision: it is stored once, and is proposed again only if another came
// first, or may have.
func TestDecide(t *testing.T) {
	lost := func(*maker) error { return bus.ErrUnknownOutcome }
	underWay := func(*maker) error { return &bus.WrongLast{UnderWay: true} }
	stores := func(bodies ...string) func(*maker) error {
		return func(m *maker) error { m.stores(bodies...); return bus.ErrUnknownOutcome }
	}
	for name, test := range map[string]struct {
		answers       []func(*maker) error // and nothing is sent
		asked, outrun int
		want          []string
	}{
		"none lost":                        {nil, 1, 0, []string{"ours 1"}},
		"lost":                             {[]func(*maker) error{lost, lost}, 1, 0, []string{"ours 1"}},
		"another's under way":              {[]func(*maker) error{underWay, underWay}, 3, 2, []string{"ours 3"}},
		"ours under way, and lost":         {[]func(*maker) error{lost, underWay}, 1, 0, []string{"ours 1"}},
		"the answer is lost":               {[]func(*maker) error{stores("ours 1")}, 1, 0, []string{"ours 1"}},
		"and another decides after that":   {[]func(*maker) error{stores("ours 1", "rival")}, 1, 0, []string{"ours 1", "rival"}},
		"another was first":                {[]func(*maker) error{stores("rival")}, 2, 1, []string{"rival", "ours 2"}},
		"nothing can be stored after that": {[]func(*maker) error{lost, func(*maker) error { return bus.ErrFull }}, 1, 0, []string{"ours 1"}},
		"aged out, and then not":           {[]func(*maker) error{func(*maker) error { return &bus.WrongLast{} }}, 3, 2, []string{"ours 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t)
			before, answers := m.known, test.answers
			m.bus.MayStore = func() error {
				if len(answers) == 0 {
					return nil
				}
				answer := answers[0]
				answers = answers[1:]
				return answer(m)
			}
			if err := m.decide(t.Context()); err != nil || m.asked != test.asked || m.lost != test.outrun {
				t.Errorf("asked %d times, outrun %d times, got %v, want %d and %d", m.asked, m.lost, err, test.asked, test.outrun)
			}
			if got := fmt.Sprint(bodies(t, m.bus)[1:]); got != fmt.Sprint(test.want) {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if m.known <= before {
				t.Errorf("the maker knows up to %d, want what it decided", m.known)
			}
		})
	}
}

// A fence that has left the stream is no decision that came first, and one that the maker has forgotten is found.
func TestDecide_FenceAgedOut(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*maker) error
		want    string
	}{
		"of the stream": {func(m *maker) error {
			s, err := m.bus.JS.Stream(m.Context(), stream)
			if err == nil {
				err = s.DeleteMsg(m.Context(), m.known)
			}
			return err
		}, "ours 2"},
		"of what is known": {func(m *maker) error { m.known = 0; return nil }, "ours 2"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t)
			if err := test.prepare(m); err != nil {
				t.Fatal(err)
			}
			if err := m.decide(t.Context()); err != nil {
				t.Fatal(err)
			}
			last, err := m.bus.LastForSubject(t.Context(), stream, "s.d.one")
			if err != nil || string(last.Data) != test.want {
				t.Errorf("got %s, %v, want %s", last.Data, err, test.want)
			}
		})
	}
}

// A caller that goes before the outcome is known is not told that nothing was stored.
func TestDecide_CallerGoes(t *testing.T) {
	for name, test := range map[string]struct {
		first error
		want  error
	}{
		"while it is unknown":    {bus.ErrUnknownOutcome, bus.ErrUnknownOutcome},
		"while nothing was sent": {&bus.WrongLast{UnderWay: true}, bus.ErrNotStored},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t)
			ctx, cancel := context.WithCancel(t.Context())
			answers := []error{test.first, bus.ErrFull}
			m.bus.MayStore = func() error {
				err := answers[0]
				if answers = answers[1:]; len(answers) == 0 || errors.Is(err, bus.ErrNotStored) {
					cancel()
				}
				return err
			}
			err := m.decide(ctx)
			if !errors.Is(err, test.want) || errors.Is(err, bus.ErrNotStored) == errors.Is(err, bus.ErrUnknownOutcome) || errors.Is(err, bus.ErrFull) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}
