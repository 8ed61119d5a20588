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
	// firstRead is the room that a body gets before any of it has come: what is announced may never come.
	// Each connection can use it up once, and is counted for it.
	firstRead = 4 << 10
	// bodyStep is what a body has to bring every stepWithin, if it does not end, and stepWithin is also for the headers
	// and the first step. So the slowest body of 4 MiB takes four hours, and holds no more than has come of it.
	bodyStep = 4 << 10
	// Used up by a client that stands still, which alone is cut off.
	stepWithin = 15 * time.Second
	// extendEvery is how often that time is given anew: a fast body brings many steps.
	extendEvery = time.Second
	// answerWithin is the time to answer, from the end of the headers, or of a body that took its time. Used
	// up by a client that does not read, which alone is cut off.
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

// RateHeaders tells a client where it stands: RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset (seconds
// until the limit is whole again), and with a retryAfter above 0 also Retry-After. Seconds are rounded up. A limit
// of 0 means none and sets no RateLimit header.
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
