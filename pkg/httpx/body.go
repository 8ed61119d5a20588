package httpx

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// ReadBody reads the whole body. One of more than limit bytes is fault.TooLarge, found out before reading it where
// the header tells; one that breaks off is fault.Invalid.
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, tooLarge(limit)
	}
	if r.ContentLength >= 0 {
		b := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			return nil, unreadable(err)
		}
		return b, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, unreadable(err)
	}
	if int64(len(b)) > limit {
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
