package releases

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"golang.org/x/time/rate"
)

const (
	// chunk is what is sent between two looks at the pace, the clock and the
	// client.
	chunk = 128 << 10
	// chunkWithin is how long a client may take to receive one. A whole file may
	// take far longer than any other answer.
	//
	// Limit: a client takes at most 30 s for 128 KiB of a download. Beyond it: the connection is closed.
	// Used up by: a client that does not read. Hurts: that client alone. Test: TestWriter_SlowReader.
	chunkWithin = 30 * time.Second
)

// pace is how fast all downloads together may be.
type pace struct{ limiter *rate.Limiter }

func newPace(bytes int64) *pace {
	if bytes <= 0 {
		return &pace{rate.NewLimiter(rate.Inf, 0)}
	}
	return &pace{rate.NewLimiter(rate.Limit(bytes), chunk)}
}

// writer writes a file's bytes at the pace, and knows how many were written.
type writer struct {
	gin.ResponseWriter
	ctx     context.Context
	pace    *pace
	control *http.ResponseController
	written int64
}

// ReadFrom sends what is left of a part of a file, past gin's writer, which
// would copy it through memory instead of leaving it to the system.
func (w *writer) ReadFrom(from io.Reader) (int64, error) {
	w.WriteHeaderNow()
	to := io.Writer(w.ResponseWriter)
	if below, ok := w.ResponseWriter.(interface{ Unwrap() http.ResponseWriter }); ok {
		to = below.Unwrap()
	}
	part, ok := from.(*io.LimitedReader)
	if !ok {
		part = &io.LimitedReader{R: from, N: 1<<63 - 1}
	}
	begun := w.written
	for part.N > 0 {
		next := min(part.N, chunk)
		if err := w.pace.limiter.WaitN(w.ctx, int(next)); err != nil {
			return w.written - begun, err // the client has gone, or the server stops
		}
		if err := w.control.SetWriteDeadline(time.Now().Add(chunkWithin)); err != nil {
			return w.written - begun, err
		}
		// The system sends the file itself only if it is wrapped in a single LimitedReader.
		n, err := io.Copy(to, &io.LimitedReader{R: part.R, N: next})
		part.N -= n
		w.written += n
		if err != nil || n < next {
			return w.written - begun, err
		}
	}
	return w.written - begun, nil
}

// sent is the part of the file that was written. Its end counts only if it has left this process.
func (w *writer) sent(size int64) span {
	begin, last, of := int64(0), size-1, size
	switch w.Status() {
	case http.StatusOK:
	case http.StatusPartialContent:
		if _, err := fmt.Sscanf(w.Header().Get("Content-Range"), "bytes %d-%d/%d", &begin, &last, &of); err != nil {
			return span{}
		}
	default:
		return span{}
	}
	s := span{begin, begin + w.written}
	if s.end > last && w.control.Flush() != nil {
		return span{}
	}
	return s
}
