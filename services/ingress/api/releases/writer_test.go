package releases

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
)

// connection is an answer that notes by when its client has to have read what is sent.
type connection struct {
	http.ResponseWriter
	deadlines []time.Duration
	begun     time.Time
}

func (c *connection) SetWriteDeadline(by time.Time) error {
	c.deadlines = append(c.deadlines, by.Sub(c.begun))
	return nil
}

// download sends so many chunks at so many bytes a second, and gives the deadlines of the chunks.
func download(t *testing.T, chunks int, bytesASecond int64) []time.Duration {
	t.Helper()
	c := &connection{ResponseWriter: httptest.NewRecorder(), begun: time.Now()}
	gin.SetMode(gin.ReleaseMode)
	g, _ := gin.CreateTestContext(c)
	w := &writer{ResponseWriter: g.Writer, ctx: t.Context(), pace: newPace(bytesASecond), control: http.NewResponseController(c)}
	size := int64(chunks * chunk)
	n, err := w.ReadFrom(io.LimitReader(bytes.NewReader(make([]byte, size)), size))
	if n != size || err != nil {
		t.Errorf("sent %d bytes, %v, want %d", n, err, size)
	}
	return c.deadlines
}

// A client has its time for each chunk, however long the whole takes.
func TestWriter_SlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if got, want := download(t, 3, 0), []time.Duration{chunkWithin, chunkWithin, chunkWithin}; !slices.Equal(got, want) {
			t.Errorf("got deadlines %v, want %v", got, want)
		}
	})
}

// Downloads go as fast as they may, and no faster.
func TestWriter_Pace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const s = time.Second
		if got, want := download(t, 4, chunk/2), []time.Duration{chunkWithin, chunkWithin + 2*s, chunkWithin + 4*s, chunkWithin + 6*s}; !slices.Equal(got, want) {
			t.Errorf("got deadlines %v, want a chunk every 2 s: %v", got, want)
		}
	})
}
