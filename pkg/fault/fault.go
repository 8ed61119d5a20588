// Package fault is the one error vocabulary of the system: errors that another part, or a client, acts on.
//
// An error becomes a fault only where someone does something about it; everything else stays a plain error and
// reaches the outside as Internal, without its text.
package fault

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"time"
)

// Kind says what the caller can do about an error. It crosses the wire, so it is a word and is never renamed.
type Kind string

// The kinds. Each dialect maps them once onto its own statuses and bodies.
const (
	Internal        Kind = "internal"        // a bug or a broken part of ours; nothing the caller can mend
	Invalid         Kind = "invalid"         // the request is malformed and stays so
	TooLarge        Kind = "too_large"       // a body or a list is longer than the stated maximum
	Unauthenticated Kind = "unauthenticated" // no credentials, or wrong ones
	Forbidden       Kind = "forbidden"       // known, but not allowed
	NotFound        Kind = "not_found"       // no such thing in this account
	Conflict        Kind = "conflict"        // it exists, or its state does not allow this
	Mismatch        Kind = "mismatch"        // same idempotency key, other body
	LimitExceeded   Kind = "limit_exceeded"  // the month's limit; Limit and Used say how much
	RateLimited     Kind = "rate_limited"    // too many requests; RetryAfter says when
	Full            Kind = "full"            // surely not stored for want of space; RetryAfter says when
	Unavailable     Kind = "unavailable"     // surely not done; the same request may succeed later
	UnknownOutcome  Kind = "unknown_outcome" // it may have been done; repeat only with the same idempotency key
)

// Error is a fault. Text is for people and safe to show: it never holds a message's text, a number or a token.
type Error struct {
	Kind       Kind
	Code       string        // machine word, for example "subscription_required"
	Text       string        // one sentence for people
	RetryAfter time.Duration // 0 when nothing is known; millisecond precision on the wire
	Limit      int64         // with LimitExceeded: messages a month
	Used       int64         // with LimitExceeded: counted so far
	cause      error
}

// New returns a fault without a cause.
func New(kind Kind, code, text string) *Error {
	return &Error{Kind: kind, Code: code, Text: text}
}

// With returns a copy of e that has cause in its chain, for errors.Is and for logs. The cause never crosses the wire.
func (e *Error) With(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// Error gives code, text and cause: for logs, not for clients, who get Code and Text only.
func (e *Error) Error() string {
	s := e.Code + ": " + e.Text
	if e.cause != nil {
		s += ": " + e.cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is a fault of the same kind and code, so that a copy made by With, or one that came
// over the wire, still equals the variable it was made from.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind && t.Code == e.Code
}

// wire is the JSON form.
type wire struct {
	Kind         Kind   `json:"kind"`
	Code         string `json:"code"`
	Text         string `json:"text"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
	Limit        int64  `json:"limit,omitempty"`
	Used         int64  `json:"used,omitempty"`
}

// MarshalJSON writes everything but the cause.
func (e *Error) MarshalJSON() ([]byte, error) {
	ms := e.RetryAfter.Milliseconds()
	if ms == 0 && e.RetryAfter > 0 {
		ms = 1
	}
	return json.Marshal(wire{e.Kind, e.Code, e.Text, ms, e.Limit, e.Used})
}

// UnmarshalJSON reads what MarshalJSON wrote. An empty kind, as from another program, is Internal.
func (e *Error) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	if w.Kind == "" {
		w.Kind = Internal
	}
	// Another program's number may be one that no Duration holds.
	after := time.Duration(min(max(w.RetryAfterMS, 0), int64(math.MaxInt64/time.Millisecond))) * time.Millisecond
	*e = Error{Kind: w.Kind, Code: w.Code, Text: w.Text, RetryAfter: after, Limit: w.Limit, Used: w.Used}
	return nil
}

// As returns the first fault in err's chain, nil for nil. A context that ended is Unavailable; anything else is
// Internal, with err as the cause, so that the log can say what the client is not told.
func As(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return New(Unavailable, "unavailable", "Not answered in time").With(err)
	}
	return New(Internal, "internal", "Internal error").With(err)
}

// Is reports whether err is a fault of this kind, in the sense of As.
func Is(err error, kind Kind) bool {
	return err != nil && As(err).Kind == kind
}
