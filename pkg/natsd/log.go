package natsd

import (
	"fmt"
	"sync"

	"go.uber.org/zap"
)

// logBridge gives the engine's log lines to zap. A fatal one does not end the
// process: the first one is remembered, and Start returns it.
type logBridge struct {
	log   *zap.SugaredLogger
	alarm chan<- struct{} // gets a token with each warning or error, if it has none

	mu    sync.Mutex
	first string
}

// Noticef logs what the engine tells about itself: for us that is debugging.
func (b *logBridge) Noticef(format string, v ...any) { b.log.Debugf(format, v...) }

// Debugf logs for debugging.
func (b *logBridge) Debugf(format string, v ...any) { b.log.Debugf(format, v...) }

// Tracef drops the line: traces have the messages themselves.
func (b *logBridge) Tracef(format string, v ...any) {}

// Warnf logs a warning, and rings the alarm.
func (b *logBridge) Warnf(format string, v ...any) {
	b.log.Warnf(format, v...)
	b.ring()
}

// Errorf logs an error, and rings the alarm.
func (b *logBridge) Errorf(format string, v ...any) {
	b.log.Errorf(format, v...)
	b.ring()
}

func (b *logBridge) ring() {
	select {
	case b.alarm <- struct{}{}:
	default:
	}
}

// Fatalf logs an error, and remembers the first one for fatal.
func (b *logBridge) Fatalf(format string, v ...any) {
	line := fmt.Sprintf(format, v...)
	b.mu.Lock()
	if b.first == "" {
		b.first = line
	}
	b.mu.Unlock()
	b.log.Error(line)
}

func (b *logBridge) fatal() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.first
}
