package streams

import (
	"fmt"
	"strings"
)

// Priority orders the lanes of an account: lower numbers go first.
type Priority uint8

// The priorities. The numbers are stored.
const (
	High Priority = iota
	Normal
	Low
)

var priorityNames = [...]string{"high", "normal", "low"}

// String is the priority's word in subjects.
func (p Priority) String() string { return priorityNames[p] }

// Class says which phones can carry a message.
type Class uint8

// The classes. The numbers are stored.
const (
	Text  Class = iota // any phone
	Other              // phones that can send data and encrypted messages
)

var classNames = [...]string{"text", "other"}

// String is the class's word in subjects.
func (c Class) String() string { return classNames[c] }

// Lane is one queue of an account: first in, first out.
type Lane struct {
	Target   DeviceID // zero: any device of the account
	Priority Priority
	Class    Class
}

// String is "<target>.<priority>.<class>", as in subjects.
func (l Lane) String() string {
	target := "any"
	if l.Target != 0 {
		target = l.Target.String()
	}
	return target + "." + l.Priority.String() + "." + l.Class.String()
}

// MarshalText gives what String does.
func (l Lane) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is ParseLane.
func (l *Lane) UnmarshalText(text []byte) error {
	got, err := ParseLane(string(text))
	*l = got
	return err
}

// ParseLane reads what String gives.
func ParseLane(text string) (Lane, error) {
	var l Lane
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return l, fmt.Errorf("parse lane: want <target>.<priority>.<class>")
	}
	if parts[0] != "any" {
		target, err := ParseID[deviceKind](parts[0])
		if err != nil || target == 0 {
			return l, fmt.Errorf("parse lane: no such target")
		}
		l.Target = target
	}
	priority, ok := indexOf(priorityNames[:], parts[1])
	if !ok {
		return l, fmt.Errorf("parse lane: no such priority")
	}
	class, ok := indexOf(classNames[:], parts[2])
	if !ok {
		return l, fmt.Errorf("parse lane: no such class")
	}
	l.Priority, l.Class = Priority(priority), Class(class)
	return l, nil
}

func indexOf(words []string, word string) (int, bool) {
	for i, w := range words {
		if w == word {
			return i, true
		}
	}
	return 0, false
}
