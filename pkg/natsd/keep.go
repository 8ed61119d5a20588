package natsd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/natsd/filestore"
)

// The engine deletes a stream that it cannot open at its start, whatever the
// reason: a damaged file, no room for a new one. So while it starts, all files
// of the streams have a second name beside them, which costs no room, and what
// it has deleted is put back.

// openingDir holds the second names.
const openingDir = "opening"

func (s *Server) storeDir() string   { return filepath.Join(s.dir, engineDir, server.JetStreamStoreDir) }
func (s *Server) openingDir() string { return filepath.Join(s.dir, engineDir, openingDir) }

// keepStreams gives all files their second names. A start that was cut short is
// made good first.
func (s *Server) keepStreams() error {
	if err := s.putBack(nil); err != nil {
		return err
	}
	err := filepath.WalkDir(s.storeDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir // what the engine was told to delete, and had no time to
		}
		second := filepath.Join(s.openingDir(), strings.TrimPrefix(path, s.storeDir()))
		if d.IsDir() {
			return os.MkdirAll(second, 0o700)
		}
		return os.Link(path, second)
	})
	switch {
	case errors.Is(err, os.ErrNotExist): // there is no stream yet
		return s.letGo()
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, os.ErrPermission): // by the file system
		s.log.Warn("this file system gives no file a second name: a stream that the engine cannot open at its start is lost", zap.Error(err))
		return s.letGo()
	case err != nil:
		return errors.Join(fmt.Errorf("keep the streams while the engine starts: %w", err), s.letGo())
	}
	return nil
}

// checkOpen holds the engine's streams to those that were there before, puts
// back what is missing, and says which that is. A stream whose making was cut
// short is none.
func (s *Server) checkOpen(engine *server.Server) error {
	info, err := engine.Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	if err != nil {
		return fmt.Errorf("look at the engine's streams: %w", err)
	}
	open := map[string]bool{}
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			open[filepath.Join(account.Name, "streams", stream.Name)] = true
		}
	}
	if err := s.dropUnmade(open); err != nil {
		return err
	}
	all, err := filestore.Streams(s.openingDir())
	if err != nil {
		return err
	}
	var missing []string
	for _, kept := range all {
		if !open[kept] && !filestore.Unmade(filepath.Join(s.openingDir(), kept)) {
			missing = append(missing, filepath.Base(kept))
		}
	}
	if len(missing) == 0 {
		return s.letGo()
	}
	engine.Shutdown()
	engine.WaitForShutdown()
	if err := s.putBack(open); err != nil {
		return err
	}
	return fmt.Errorf("the engine cannot open %s, and all was left as it was: look at the disk and restore the data directory", strings.Join(missing, ", "))
}

// dropUnmade removes what is left of streams whose making was cut short: made
// again over that, they would lack the same files as before.
func (s *Server) dropUnmade(open map[string]bool) error {
	all, err := filestore.Streams(s.storeDir())
	if err != nil {
		return err
	}
	for _, stream := range all {
		dir := filepath.Join(s.storeDir(), stream)
		if open[stream] || !filestore.Unmade(dir) {
			continue
		}
		s.log.Warn("a stream is dropped whose making was cut short", zap.String("stream", filepath.Base(stream)))
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("drop stream %s, whose making was cut short: %w", filepath.Base(stream), err)
		}
	}
	return nil
}

// putBack puts the streams back that are not open, or that are not there if it
// is not known which are open, and drops all other second names.
func (s *Server) putBack(open map[string]bool) error {
	all, err := filestore.Streams(s.openingDir())
	if err != nil {
		return err
	}
	for _, kept := range all {
		first := filepath.Join(s.storeDir(), kept)
		second := filepath.Join(s.openingDir(), kept)
		if _, err := os.Stat(filepath.Join(first, server.JetStreamMetaFile)); open[kept] || open == nil && err == nil || filestore.Unmade(second) {
			continue
		}
		if err := moveTo(first, second); err != nil {
			return fmt.Errorf("put stream %s back: %w", filepath.Base(kept), err)
		}
		if open == nil {
			s.log.Error("a stream was put back that the engine could not open in a start that was cut short", zap.String("stream", filepath.Base(kept)))
		}
	}
	return s.letGo()
}

// moveTo puts a stream in the place of what is left of it.
func moveTo(first, second string) error {
	if err := os.RemoveAll(first); err != nil {
		return err
	}
	for try := 0; ; try++ {
		err := os.MkdirAll(filepath.Dir(first), 0o700)
		if err == nil {
			err = os.Rename(second, first)
		}
		// The engine removes the folders above, if they are empty, behind our back.
		if err == nil || try == 10 || !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
}

func (s *Server) letGo() error {
	if err := os.RemoveAll(s.openingDir()); err != nil {
		return fmt.Errorf("drop second names: %w", err)
	}
	return nil
}
