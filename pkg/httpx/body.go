package httpx

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

const (
	// The length that a client announces is no reason to take room: the body may never come.
	//
	// Limit: a body gets room for 4 KiB before any of it has come. Beyond it: its room grows with what comes.
	// Used up by: each connection, once. Hurts: nobody: it counts as bytes of its sender. Test: TestLimiter_SlowBodies.
	firstRead = 4 << 10
	// So the slowest body of 4 MiB takes four hours, and uses no more memory than what has come of it.
	//
	// Limit: 4 KiB more of a body, or its end, must come every 15 s; the whole may take as long as it needs. Beyond
	// it: 400 body_unreadable.
	// Used up by: a client that stands still. Hurts: that client alone. Test: TestLimiter_SlowLine.
	bodyStep = 4 << 10
	// Limit: 15 s for the headers and the first 4 KiB of a body. Beyond it: 400 body_unreadable.
	// Used up by: a client that stands still. Hurts: that client alone. Test: TestIngress_SlowClients.
	stepWithin = 15 * time.Second
	// extendEvery is how often the deadline is moved at most: a fast body brings many steps.
	extendEvery = time.Second
	// Limit: 60 s to answer, from the end of the headers, or of a body that took more than a second. Beyond it: the
	// connection is closed.
	// Used up by: a client that does not read. Hurts: that client alone. Test: TestServeSlowReader.
	answerWithin = 60 * time.Second
)

// readBody reads a whole body. It takes room before it uses more memory.
func readBody(r *http.Request, limit int64, p *Place) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	most := r.ContentLength
	if most < 0 {
		most = limit + 1
	}
	size := min(most, firstRead)
	if err := p.take(size); err != nil {
		return nil, err
	}
	b := make([]byte, 0, size)
	for stepped := 0; ; {
		if size = int64(len(b)); size == most {
			break
		}
		if len(b) == cap(b) {
			larger := min(2*size, most)
			if err := p.take(larger - size); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, larger), b...)
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case errors.Is(err, io.EOF) && int64(len(b)) < r.ContentLength:
			return nil, unreadable(io.ErrUnexpectedEOF)
		case errors.Is(err, io.EOF) && int64(len(b)) <= limit:
			return b, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && p.hasLost():
			return nil, errOverloaded
		case err != nil && !errors.Is(err, io.EOF):
			return nil, unreadable(err)
		}
		if len(b)-stepped >= bodyStep {
			stepped = len(b)
			p.stepped()
		}
	}
	if size > limit {
		return nil, tooLarge(limit)
	}
	return b, nil
}

func tooLarge(limit int64) error {
	return fault.New(fault.TooLarge, "body_too_large", "The body may have at most "+strconv.FormatInt(limit, 10)+" bytes")
}

func unreadable(err error) error {
	return fault.New(fault.Invalid, "body_unreadable", "The body broke off").With(err)
}

// RateHeaders sets RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset (seconds until all of the limit is there
// again), and Retry-After if retryAfter is above 0. Seconds are rounded up. A limit of 0 means that there is none: no
// RateLimit header is set.
func RateHeaders(h http.Header, limit, remaining int, reset, retryAfter time.Duration) {
	if limit > 0 {
		h.Set("RateLimit-Limit", strconv.Itoa(limit))
		h.Set("RateLimit-Remaining", strconv.Itoa(max(remaining, 0)))
		h.Set("RateLimit-Reset", seconds(reset))
	}
	if retryAfter > 0 {
		h.Set("Retry-After", seconds(retryAfter))
	}
}

func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((max(d, 0)+time.Second-1)/time.Second), 10)
}
