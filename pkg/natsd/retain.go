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

// At its start the engine deletes a stream that it cannot open, whatever the
// reason: a damaged file, or no room for a new one. So while it starts, all files
// of the streams have a second name (a hard link) in a folder beside them. That
// takes no room, and what the engine has deleted can be put back.

// openingDir has the second names.
const openingDir = "opening"

func (s *Server) storeDir() string   { return filepath.Join(s.dir, engineDir, server.JetStreamStoreDir) }
func (s *Server) openingDir() string { return filepath.Join(s.dir, engineDir, openingDir) }

// retainStreams gives all files their second names. If an earlier start was cut
// short, what the engine has deleted in it is put back first.
func (s *Server) retainStreams() error {
	if err := s.putBack(nil); err != nil {
		return err
	}
	err := filepath.WalkDir(s.storeDir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir // a stream that the engine was told to delete, and has not deleted yet
		}
		second := filepath.Join(s.openingDir(), strings.TrimPrefix(path, s.storeDir()))
		if d.IsDir() {
			return os.MkdirAll(second, 0o700)
		}
		return os.Link(path, second)
	})
	switch {
	case errors.Is(err, os.ErrNotExist): // there is no stream yet
		return s.dropSecond()
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, os.ErrPermission): // by the file system
		s.log.Warn("this file system gives no file a second name: a stream that the engine cannot open at its start is lost", zap.Error(err))
		return s.dropSecond()
	case err != nil:
		return errors.Join(fmt.Errorf("keep the streams while the engine starts: %w", err), s.dropSecond())
	}
	return nil
}

// checkOpen compares the engine's streams with those from before its start. If any
// are missing, it stops the engine and puts them back; the error names them. What
// is left of a stream that was never made in full does not count.
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
		return s.dropSecond()
	}
	engine.Shutdown()
	engine.WaitForShutdown()
	if err := s.putBack(open); err != nil {
		return err
	}
	return fmt.Errorf("the engine cannot open %s, and all was left as it was: look at the disk and restore the data directory", strings.Join(missing, ", "))
}

// dropUnmade removes what is left of streams that were never made in full. If they
// were made again on top of that, the same files would still be missing.
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

// putBack puts back the streams that are not open, and drops all other second
// names. If open is nil, it is not known which are open, and those that are not
// there are put back.
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
	return s.dropSecond()
}

// moveTo puts a stream where what is left of it was.
func moveTo(first, second string) error {
	if err := os.RemoveAll(first); err != nil {
		return err
	}
	for try := 0; ; try++ {
		err := os.MkdirAll(filepath.Dir(first), 0o700)
		if err == nil {
			err = os.Rename(second, first)
		}
		// The engine may remove the folders above at the same time, if they are empty.
		if err == nil || try == 10 || !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
}

// dropSecond removes all second names.
func (s *Server) dropSecond() error {
	if err := os.RemoveAll(s.openingDir()); err != nil {
		return fmt.Errorf("drop second names: %w", err)
	}
	return nil
}
