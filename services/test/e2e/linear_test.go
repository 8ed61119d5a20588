package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/trunkline-sms/trunkline/pkg/testkit"
)

// record is what clients asked and were answered, and when: a history to be checked for linearizability.
type record struct {
	began time.Time

	mu  sync.Mutex
	ops []porcupine.Operation
}

func newRecord() *record { return &record{began: time.Now()} }

// add notes an operation that was called and has returned now.
func (r *record) add(client int, input any, called time.Time) {
	returned := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{
		ClientId: client, Input: input, Call: int64(called.Sub(r.began)), Return: int64(returned.Sub(r.began)),
	})
}

// since is a time as the record's operations have it.
func (r *record) since(t time.Time) time.Duration { return t.Sub(r.began) }

// check fails the test unless the operations can have taken effect one after the other, each between its call and its
// return. What proves that they cannot is left in a file.
func (r *record) check(t *testing.T, what string, model porcupine.Model) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	parts := map[string]bool{}
	for _, op := range r.ops {
		parts[op.Input.(operation).of()] = true
	}
	t.Logf("%s: %d operations on %d checked", what, len(r.ops), len(parts))
	if len(r.ops) == 0 {
		t.Errorf("%s: there is no operation", what)
	}
	result, info := porcupine.CheckOperationsVerbose(model, r.ops, testkit.Patience)
	if result == porcupine.Ok {
		return
	}
	dir, err := os.MkdirTemp("", "trunkline-history-")
	if err == nil {
		err = porcupine.VisualizePath(model, info, filepath.Join(dir, "history.html"))
	}
	t.Errorf("%s: the history is %s: look at %s/history.html (%v)", what, result, dir, err)
}

// operation is on one of many things, each of which has a history of its own.
type operation interface{ of() string }

func partition(history []porcupine.Operation) (parts [][]porcupine.Operation) {
	at := map[string]int{}
	for _, op := range history {
		name := op.Input.(operation).of()
		i, known := at[name]
		if !known {
			i = len(parts)
			at[name], parts = i, append(parts, nil)
		}
		parts[i] = append(parts[i], op)
	}
	return parts
}

func describe(input, _ any) string { return fmt.Sprintf("%+v", input) }

// The operations on the room that an account has.
type (
	reserved struct { // granted
		account string
		count   int64
	}
	refusedRoom struct { // the limit is reached
		account string
		count   int64
		slack   int64 // of what has been asked or given back, nobody knows whether it counts
	}
	released struct {
		account string
		count   int64
	}
)

func (o reserved) of() string    { return o.account }
func (o refusedRoom) of() string { return o.account }
func (o released) of() string    { return o.account }

// room is the model of an account's limit: what is granted never exceeds it, and nothing is refused that fits.
func room(limit int64) porcupine.Model {
	return porcupine.Model{
		Partition: partition,
		Init:      func() any { return int64(0) },
		Step: func(state, input, _ any) (bool, any) {
			used := state.(int64)
			switch o := input.(type) {
			case reserved:
				return used+o.count <= limit, used + o.count
			case refusedRoom:
				return used+o.slack+o.count > limit, used
			case released:
				return used >= o.count, used - o.count
			}
			return false, used
		},
		DescribeOperation: describe,
	}
}

// The operations on one message. The times are what the phone knows: a lease began after the phone asked, and an answer
// was given before it came.
type (
	handedOut struct {
		message         string
		page            string
		asked, answered time.Duration
	}
	renewed struct { // by a report on another message of its page
		message         string
		page            string
		began, answered time.Duration
	}
	ended struct{ message string } // reported as sent
)

func (o handedOut) of() string { return o.message }
func (o renewed) of() string   { return o.message }
func (o ended) of() string     { return o.message }

// holding is where a message stands.
type holding struct {
	page  string
	until time.Duration // the lease ends no sooner
	ended bool
}

// leases is the model of a message: it is with one page at a time, as long as that one's lease lasts, and with none
// once it has ended.
func leases(length time.Duration) porcupine.Model {
	return porcupine.Model{
		Partition: partition,
		Init:      func() any { return holding{} },
		Step: func(state, input, _ any) (bool, any) {
			s := state.(holding)
			switch o := input.(type) {
			case handedOut:
				free := s.page == "" || o.answered >= s.until
				return free && !s.ended, holding{page: o.page, until: o.asked + length}
			case renewed:
				// One that came too late, or after another page's beginning, renews nothing.
				if s.page == o.page && o.answered < s.until {
					s.until = max(s.until, o.began+length)
				}
				return true, s
			case ended:
				s.ended = true
				return true, s
			}
			return false, s
		},
		DescribeOperation: describe,
	}
}

// A model that accepts everything proves nothing.
func TestModels(t *testing.T) {
	const lease = 10
	op := func(from, to int64, input any) porcupine.Operation {
		return porcupine.Operation{Input: input, Call: from, Return: to}
	}
	give := func(page string, asked, answered int64) porcupine.Operation {
		return op(asked, answered, handedOut{"m", page, time.Duration(asked), time.Duration(answered)})
	}
	renew := func(page string, began, answered int64) porcupine.Operation {
		return op(began, answered, renewed{"m", page, time.Duration(began), time.Duration(answered)})
	}
	done := func(from, to int64) porcupine.Operation { return op(from, to, ended{"m"}) }
	reserve := func(from, to, n int64) porcupine.Operation { return op(from, to, reserved{"a", n}) }
	refuse := func(from, to, n, slack int64) porcupine.Operation { return op(from, to, refusedRoom{"a", n, slack}) }
	release := func(from, to, n int64) porcupine.Operation { return op(from, to, released{"a", n}) }
	for name, test := range map[string]struct {
		model   porcupine.Model
		history []porcupine.Operation
		want    bool
	}{
		"again after the lease":           {leases(lease), []porcupine.Operation{give("p", 0, 1), give("q", 5, 10)}, true},
		"within the lease":                {leases(lease), []porcupine.Operation{give("p", 0, 1), give("q", 5, 9)}, false},
		"at once":                         {leases(lease), []porcupine.Operation{give("p", 0, 9), give("q", 0, 9)}, false},
		"an answer that came late":        {leases(lease), []porcupine.Operation{give("p", 0, 15), give("q", 5, 9)}, true},
		"after its end":                   {leases(lease), []porcupine.Operation{give("p", 0, 1), done(2, 3), give("q", 15, 16)}, false},
		"while it ends":                   {leases(lease), []porcupine.Operation{give("p", 0, 1), done(2, 30), give("q", 15, 16)}, true},
		"within a renewed lease":          {leases(lease), []porcupine.Operation{give("p", 0, 1), renew("p", 8, 9), give("q", 15, 17)}, false},
		"after a renewed lease":           {leases(lease), []porcupine.Operation{give("p", 0, 1), renew("p", 8, 9), give("q", 15, 18)}, true},
		"a renewal that may be too late":  {leases(lease), []porcupine.Operation{give("p", 0, 1), renew("p", 8, 11), give("q", 15, 17)}, true},
		"another message is another's":    {leases(lease), []porcupine.Operation{give("p", 0, 1), op(2, 3, handedOut{"n", "q", 2, 3})}, true},
		"up to the limit":                 {room(3), []porcupine.Operation{reserve(0, 1, 2), reserve(0, 1, 1), refuse(2, 3, 1, 0)}, true},
		"over the limit":                  {room(3), []porcupine.Operation{reserve(0, 1, 2), reserve(0, 1, 2)}, false},
		"after a release":                 {room(3), []porcupine.Operation{reserve(0, 1, 3), release(2, 3, 1), reserve(4, 5, 1)}, true},
		"before a release":                {room(3), []porcupine.Operation{reserve(0, 1, 3), reserve(2, 3, 1), release(4, 5, 1)}, false},
		"refused though there is room":    {room(3), []porcupine.Operation{reserve(0, 1, 1), refuse(2, 3, 2, 0)}, false},
		"refused though there may be":     {room(3), []porcupine.Operation{reserve(0, 1, 1), refuse(2, 3, 2, 1)}, true},
		"refused before what is released": {room(3), []porcupine.Operation{reserve(0, 1, 3), release(2, 5, 3), refuse(3, 4, 1, 0)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := porcupine.CheckOperations(test.model, test.history); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
