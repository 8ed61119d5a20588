package streams

import "fmt"

// State is where a message stands. docs/states.md draws how one follows
// another.
type State uint8

// The states, in the order of a message's life. The numbers are stored.
const (
	Scheduled State = iota
	Pending
	Leased
	Failed
	Expired
	Cancelled
	Sent
	Delivered
)

var stateNames = [...]string{"scheduled", "pending", "leased", "failed", "expired", "cancelled", "sent", "delivered"}

// States lists every state.
func States() []State {
	all := make([]State, len(stateNames))
	for i := range all {
		all[i] = State(i)
	}
	return all
}

// String is the state's word.
func (s State) String() string {
	if int(s) >= len(stateNames) {
		return "unknown"
	}
	return stateNames[s]
}

// MarshalText gives the state's word.
func (s State) MarshalText() ([]byte, error) {
	if int(s) >= len(stateNames) {
		return nil, fmt.Errorf("marshal state %d: no such state", s)
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText reads a state's word.
func (s *State) UnmarshalText(text []byte) error {
	for i, name := range stateNames {
		if name == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("parse state %q: no such state", text)
}

// Success says that the SMS went out: no later word makes it a failure.
func (s State) Success() bool { return s >= Sent }

// Terminal says that the message is never handed out again by itself.
func (s State) Terminal() bool { return s >= Failed }

// Together is where a group stands whose messages stand there: where the one
// is that has farthest to go, failed only if all have, expired only if all are.
func Together(states []State) State {
	count := map[State]int{}
	for _, s := range states {
		count[s]++
	}
	for _, s := range []State{Pending, Scheduled, Cancelled, Leased} {
		if count[s] > 0 {
			return s
		}
	}
	switch len(states) {
	case count[Expired]:
		return Expired
	case count[Expired] + count[Failed]:
		return Failed
	case count[Delivered]:
		return Delivered
	default:
		return Sent
	}
}

// Code is the state's number in the queue dialect: 0 new, 1 initiated,
// 2 success, 3 fail.
func (s State) Code() int {
	switch {
	case s.Success():
		return 2
	case s.Terminal():
		return 3
	case s == Leased:
		return 1
	default:
		return 0
	}
}
