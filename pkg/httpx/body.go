package httpx

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// ReadBody reads the whole body. One of more than limit bytes is fault.TooLarge, found out before reading it where
// the header tells; one that breaks off is fault.Invalid.
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	return readBody(r, limit, func(int64) error { return nil })
}

// firstRead is the room that a body gets before any of it has come: what is announced may never come.
const firstRead = 16 << 10

// readBody asks take before it uses more memory.
func readBody(r *http.Request, limit int64, take func(more int64) error) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	most := r.ContentLength
	if most < 0 {
		most = limit + 1
	}
	size := min(most, firstRead)
	if err := take(size); err != nil {
		return nil, err
	}
	b := make([]byte, 0, size)
	for {
		if size = int64(len(b)); size == most {
			break
		}
		if len(b) == cap(b) {
			larger := min(2*size, most)
			if err := take(larger - size); err != nil {
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
		case err != nil && !errors.Is(err, io.EOF):
			return nil, unreadable(err)
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
