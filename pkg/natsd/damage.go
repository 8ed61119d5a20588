package natsd

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// damagedDir keeps the bytes of what was set aside.
const damagedDir = "damaged"

// checkStreams looks for damaged records in all streams and sets them aside.
// It reads everything, as the engine does at a start after a crash.
func (s *Server) checkStreams() error {
	store := filepath.Join(s.dir, engineDir)
	paths, err := filepath.Glob(filepath.Join(store, "jetstream", "*", "streams", "*", "msgs", "*.blk"))
	if err != nil {
		return fmt.Errorf("look for streams: %w", err)
	}
	newest := map[string]int{}
	for _, path := range paths {
		newest[filepath.Dir(path)] = max(newest[filepath.Dir(path)], blockIndex(path))
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0)) // each holds a block in memory
	for _, path := range paths {
		g.Go(func() error {
			dir, index := filepath.Dir(path), blockIndex(path)
			b, err := openBlock(path, filepath.Base(filepath.Dir(dir)), index, index == newest[dir])
			if err != nil {
				return err
			}
			staged, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "batches", "*"))
			if err != nil {
				return fmt.Errorf("look for batches: %w", err)
			}
			b.staged = len(staged) > 0
			return s.setAside(b)
		})
	}
	return g.Wait()
}

// blockIndex is 17 for 17.blk.
func blockIndex(path string) int {
	index, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".blk"))
	return index
}

func (s *Server) setAside(b *block) error {
	for _, d := range b.damages() {
		kept := filepath.Join(s.dir, engineDir, damagedDir, fmt.Sprintf("%s-%d-%d", b.stream, b.index, d.from))
		err := makePrivate(filepath.Dir(kept))
		if err == nil {
			err = os.WriteFile(kept, b.data[d.from:d.to], 0o600)
		}
		if err == nil {
			err = b.setAside(d)
		}
		if err != nil {
			return fmt.Errorf("set aside what is damaged of stream %s: %w", b.stream, err)
		}
		s.log.Error("the disk has damaged a stream: what stood between two of its messages is lost, what follows was kept",
			zap.String("stream", b.stream), zap.Uint64("before", d.before), zap.Uint64("after", d.after),
			zap.String("file", b.path), zap.Int("offset", d.from), zap.String("kept", kept))
	}
	return nil
}
