package bus

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// watchEnds is how long the client may take to end a watch.
const watchEnds = time.Second

// EndWatch ends the watch of a bucket, and takes what has come and was not read: the client's goroutine waits until it
// is taken. It returns within a second.
func EndWatch(w jetstream.KeyWatcher) {
	_ = w.Stop() // fails only when the connection is gone
	over := time.NewTimer(watchEnds)
	defer over.Stop()
	for {
		select {
		case _, ok := <-w.Updates():
			if !ok {
				return
			}
		case <-over.C: // the client does not always say it: not when the connection ends while it makes the watch again
			return
		}
	}
}
