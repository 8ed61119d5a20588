package natsd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// probeEvery is the pause before the next try to write to the disk.
const probeEvery = time.Second

// tend starts the engine again after a failed write. The engine never writes to
// that stream again by itself, and does not answer publishes to it. What it has
// acknowledged before is on the disk. Connections stay open, and find the new
// engine.
func (s *Server) tend(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.alarm:
		}
		reason := s.failedWrite()
		if reason == "" {
			continue
		}
		s.disk.fail(errors.New("the engine cannot write to the disk"))
		s.log.Error("the engine could not write to the disk and stores nothing; it is started again once the disk can be written", zap.String("reason", reason))
		for repaired := false; !repaired; repaired = s.repair() == nil {
			again := time.NewTimer(probeEvery)
			select {
			case <-ctx.Done():
				again.Stop()
				return
			case <-again.C:
			}
		}
		s.disk.fail(nil)
		s.log.Warn("the engine was started again, and stores what comes")
	}
}

// failedWrite gives the reason why the engine no longer stores anything, empty
// while it does.
func (s *Server) failedWrite() string {
	for _, problem := range s.engine().Healthz(&server.HealthzOptions{Details: true}).Errors {
		if problem.Type == server.HealthzErrorJetStream || strings.Contains(problem.Error, "write error") {
			return problem.Error
		}
	}
	return ""
}

// repair starts the engine again if the disk can be written.
func (s *Server) repair() error {
	if err := s.probe(); err != nil {
		return err
	}
	s.engine().Shutdown()
	s.engine().WaitForShutdown()
	err := s.checkStreams()
	if err == nil {
		err = s.launch()
	}
	if err != nil {
		s.log.Error("the engine does not start", zap.Error(err))
	}
	return err
}

// probe tries to write a file, as the engine does.
func (s *Server) probe() error {
	if s.disk.full() {
		return s.disk.Writable()
	}
	path := filepath.Join(s.dir, engineDir, "probe")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write to the data directory: %w", err)
	}
	_, err = file.Write(make([]byte, 64<<10))
	err = errors.Join(err, file.Sync(), file.Close(), os.Remove(path))
	if err != nil {
		return fmt.Errorf("write to the data directory: %w", err)
	}
	return nil
}
