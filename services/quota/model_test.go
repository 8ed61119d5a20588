package quota

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const modelLimit = 30

// step is one thing that happens in a random history.
type step struct {
	what  string
	who   int // which account, sender, grant or instance of quota, where it matters
	count int
}

func (s step) String() string { return fmt.Sprintf("%s(%d,%d)", s.what, s.who, s.count) }

var steps = rapid.Custom(func(t *rapid.T) step {
	return step{
		what: rapid.SampledFrom([]string{
			"reserve", "reserve", "reserve", "store", "store", "store unheard", "hear", "release", "forget",
			"wait", "wait for a leader", "wait for a leader", "kill", "stop", "start", "delete file",
		}).Draw(t, "what"),
		who:   rapid.IntRange(0, 7).Draw(t, "who"),
		count: rapid.IntRange(1, 12).Draw(t, "count"),
	}
})

// held is a grant in a sender's hands.
type held struct {
	request.Grant
	by    *sender
	since time.Time
}

// model knows what every account may have used: what is stored, and room that
// senders hold or left behind without a word.
type model struct {
	*world
	senders  []*sender
	quotas   map[string]*instance
	accounts []streams.AccountID
	held     []held
	unheard  []held                                         // stored, which their senders do not know
	left     map[streams.AccountID]map[string]request.Grant // grants that nobody released, by id
}

func newModel(w *world) *model {
	m := &model{world: w, quotas: map[string]*instance{}, left: map[streams.AccountID]map[string]request.Grant{}}
	for _, name := range []string{"alice", "bob"} {
		m.accounts = append(m.accounts, streams.AccountIDOf(name))
	}
	for _, account := range m.accounts {
		m.left[account] = map[string]request.Grant{}
	}
	m.senders = []*sender{w.startSender(1), w.startSender(2)}
	m.quotas["a"] = w.start("a")
	w.await("a leader", w.granting)
	return m
}

func (m *model) reserved(account streams.AccountID) (sum int64) {
	for _, h := range m.held {
		if h.Account == account {
			sum += int64(h.Count)
		}
	}
	return sum
}

// take takes a held grant, if there is one.
func (m *model) take(who int) (held, bool) {
	if len(m.held) == 0 {
		return held{}, false
	}
	who %= len(m.held)
	h := m.held[who]
	m.held = append(m.held[:who], m.held[who+1:]...)
	return h, true
}

func (m *model) leave(h held) {
	h.by.forget(h.Grant)
	m.left[h.Account][h.ID] = h.Grant
}

// run makes a step happen and gives what is wrong with how quota took it.
func (m *model) run(s step) error {
	// A sender begins no publish later than 10 s after it asked.
	kept := m.held[:0]
	for _, h := range m.held {
		if time.Since(h.since) < 10*time.Second {
			kept = append(kept, h)
		} else {
			m.leave(h)
		}
	}
	m.held = kept

	name := string(rune('a' + s.who%2))
	switch s.what {
	case "reserve":
		return m.reserve(s)
	case "store":
		if h, ok := m.take(s.who); ok {
			return h.by.store(h.Grant)
		}
	case "store unheard":
		if h, ok := m.take(s.who); ok {
			m.unheard = append(m.unheard, h)
			return h.by.commit(h.Grant)
		}
	case "hear":
		for _, h := range m.unheard {
			h.by.forget(h.Grant)
		}
		m.unheard = nil
	case "release":
		if h, ok := m.take(s.who); ok && h.by.giveBack(h.Grant) != nil {
			m.leave(h) // nobody heard it
		}
	case "forget":
		if h, ok := m.take(s.who); ok {
			m.leave(h)
		}
	case "wait":
		time.Sleep(time.Duration(s.count) * 2 * time.Second)
	case "wait for a leader":
		if len(m.quotas) > 0 {
			m.await("a leader", m.granting)
		}
	case "kill", "stop":
		if i := m.quotas[name]; i != nil {
			if s.what == "kill" {
				i.kill()
			} else {
				i.stop()
			}
			delete(m.quotas, name)
		}
	case "start":
		if m.quotas[name] == nil {
			m.quotas[name] = m.start(name)
		}
	case "delete file":
		if m.quotas[name] == nil {
			_ = os.Remove(filepath.Join(m.projections(name), "quota.db"))
		}
	}
	return nil
}

func (m *model) reserve(s step) error {
	account, by := m.accounts[s.who%2], m.senders[s.who/2%2]
	certain := m.stored(account) + m.reserved(account)
	left := int64(0)
	for _, one := range m.left[account] {
		left += int64(one.Count)
	}
	given, err := by.reserve(account, s.count, modelLimit)
	switch {
	case err == nil:
		m.held = append(m.held, held{Grant: given, by: by, since: time.Now()})
		if certain+int64(s.count) > modelLimit {
			return fmt.Errorf("granted %d beside %d", s.count, certain)
		}
	case fault.Is(err, fault.LimitExceeded):
		used := fault.As(err).Used
		if used < certain || used > certain+left {
			return fmt.Errorf("refused for %d used, want %d to %d", used, certain, certain+left)
		}
		if used+int64(s.count) <= modelLimit {
			return fmt.Errorf("refused %d although only %d are used", s.count, used)
		}
	case !fault.Is(err, fault.Unavailable):
		return err
	}
	return nil
}

// rest lets everything end and looks at what is used.
func (m *model) rest() error {
	for len(m.held) > 0 {
		h, _ := m.take(0)
		m.leave(h)
	}
	if len(m.quotas) == 0 {
		m.quotas["a"] = m.start("a")
	}
	m.await("a leader", m.granting)
	time.Sleep(request.GrantTTL + 2*time.Second)
	m.await("a leader", m.granting)
	for _, account := range m.accounts {
		used, err := m.usage(account)
		if err != nil {
			return err
		}
		stored := m.stored(account)
		if used.Used != stored || stored > modelLimit {
			return fmt.Errorf("at rest %d are used and %d stored of %d", used.Used, stored, modelLimit)
		}
	}
	return nil
}

func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		history := rapid.SliceOfN(steps, 1, 60).Draw(r, "history")
		var wrong error
		bustest.Simulate(t, func(t *testing.T) {
			m := newModel(newWorld(t, 2))
			for n, s := range history {
				if wrong = m.run(s); wrong != nil {
					wrong = fmt.Errorf("step %d, %v: %w", n, s, wrong)
					return
				}
			}
			wrong = m.rest()
		})
		if wrong != nil {
			r.Fatal(wrong)
		}
	})
}

// Senders press on while instances of quota die, stop and come: what is stored
// reaches the limit and never exceeds it.
func TestLimitHoldsAcrossTakeovers(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		const limit = 3000
		w := newWorld(t, 2)
		senders := []*sender{w.startSender(1), w.startSender(2), w.startSender(3)}
		a, b := w.start("a"), w.start("b")
		w.await("a leader", w.granting)
		stop := make(chan struct{})
		var pressing sync.WaitGroup
		for _, s := range senders {
			for range 2 {
				pressing.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if s.enqueue(alice, 7, limit) != nil {
							time.Sleep(200 * time.Millisecond)
						} else {
							time.Sleep(time.Second)
						}
					}
				})
			}
		}
		for range 2 {
			time.Sleep(3 * time.Second)
			a.kill()
			w.await("a leader", w.granting)
			a = w.start("a")
			time.Sleep(3 * time.Second)
			b.stop()
			w.await("a leader", w.granting)
			b = w.start("b")
		}
		time.Sleep(2 * time.Minute)
		close(stop)
		pressing.Wait()
		want := int64(limit / 7 * 7)
		if got := w.stored(alice); got != want {
			t.Errorf("stored: got %d, want %d", got, want)
		}
		w.mustUse(alice, want)
	})
}
