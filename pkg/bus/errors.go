package bus

import (
	"errors"
	"fmt"
)

// The error of a failed publish is always one of these two, by errors.Is.
var (
	// ErrNotStored: no part of it was stored, or ever will be.
	ErrNotStored = errors.New("not stored")
	// ErrUnknownOutcome: it may have been stored, or may still be.
	ErrUnknownOutcome = errors.New("it is not known whether it was stored")
)

// Reasons for which nothing was stored.
var (
	// ErrDuplicate: another message with the same Nats-Msg-Id is stored. It is a
	// collision, not an earlier copy of the same message.
	ErrDuplicate = fmt.Errorf("message id is taken: %w", ErrNotStored)
	// ErrFull: the stream or the server has no room.
	ErrFull = fmt.Errorf("stream is full: %w", ErrNotStored)
	// ErrBusy: a committer's queue has no room.
	ErrBusy = fmt.Errorf("too much waits to be committed: %w", ErrNotStored)
	// ErrStopped: the committer does not run any more.
	ErrStopped = fmt.Errorf("committer has stopped: %w", ErrNotStored)
)

// ErrNoMessage says that a stream has no such message.
var ErrNoMessage = errors.New("no such message")

// ErrNoAnswer says that a consumer did not answer: its node may stand still.
var ErrNoAnswer = errors.New("no answer")

// ErrNoConsumer says that a stream has no such consumer, or that no node serves
// it.
var ErrNoConsumer = errors.New("no such consumer")

// WrongLast says that the last sequence of the subject was not the one that a
// publish expected.
type WrongLast struct {
	// Last is the sequence that the engine named. It is 0 where the subject has no
	// message, and where the engine named none.
	Last uint64
	// UnderWay: another message of the subject is on its way: not yet on enough
	// nodes, or before this one in the same batch. Last is 0 then.
	UnderWay bool
}

// Error names the last sequence, or says that another message is under way.
func (e *WrongLast) Error() string {
	if e.UnderWay {
		return fmt.Sprintf("another message of the subject is under way: %v", ErrNotStored)
	}
	return fmt.Sprintf("last sequence of the subject is %d: %v", e.Last, ErrNotStored)
}

// Unwrap returns ErrNotStored.
func (e *WrongLast) Unwrap() error { return ErrNotStored }
