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

func (b *logBridge) Noticef(format string, v ...any) { b.log.Debugf(format, v...) }
func (b *logBridge) Debugf(format string, v ...any)  { b.log.Debugf(format, v...) }
func (b *logBridge) Tracef(format string, v ...any)  {}

func (b *logBridge) Warnf(format string, v ...any) {
	b.log.Warnf(format, v...)
	b.ring()
}

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
