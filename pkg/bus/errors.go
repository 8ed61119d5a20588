package bus

import (
	"errors"
	"fmt"
)

// Every failed publish is one of two: errors.Is(err, ErrNotStored) holds and
// surely nothing of it was stored, or ErrUnknownOutcome and it may have been.
var (
	ErrNotStored      = errors.New("not stored")
	ErrUnknownOutcome = errors.New("it is not known whether it was stored")
)

// Reasons for which nothing was stored.
var (
	// ErrDuplicate says that another message with the same Nats-Msg-Id is
	// stored: a collision, not a repeat of one's own.
	ErrDuplicate = fmt.Errorf("message id is taken: %w", ErrNotStored)
	// ErrFull says that the stream or the server has no room.
	ErrFull = fmt.Errorf("stream is full: %w", ErrNotStored)
	// ErrBusy says that a committer's queue has no room.
	ErrBusy = fmt.Errorf("too much waits to be committed: %w", ErrNotStored)
	// ErrStopped says that the committer does not run any more.
	ErrStopped = fmt.Errorf("committer has stopped: %w", ErrNotStored)
)

// ErrNoMessage says that a stream holds no such message.
var ErrNoMessage = errors.New("no such message")

// ErrNoAnswer says that nothing was heard of a consumer: the node that has it
// may stand still.
var ErrNoAnswer = errors.New("no answer")

// ErrNoConsumer says that a stream has no such consumer, or that nobody answers
// for it.
var ErrNoConsumer = errors.New("no such consumer")

// WrongLast says that a publish expected another last sequence of its subject.
type WrongLast struct {
	// Last is the sequence that the engine named; 0 when the subject holds
	// nothing, or when the engine named none.
	Last uint64
	// UnderWay says that another message of the subject is stored by now on too
	// few nodes, or is before this one in the same batch. Last is 0 then.
	UnderWay bool
}

// Error names the last sequence, or says that another message is under way.
func (e *WrongLast) Error() string {
	if e.UnderWay {
		return fmt.Sprintf("another message of the subject is under way: %v", ErrNotStored)
	}
	return fmt.Sprintf("last sequence of the subject is %d: %v", e.Last, ErrNotStored)
}

// Unwrap makes it ErrNotStored.
func (e *WrongLast) Unwrap() error { return ErrNotStored }
