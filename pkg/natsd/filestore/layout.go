// Package filestore knows the folders and records in which the engine stores
// streams. That format is private to nats-server. The package must exist because
// the engine cuts a file off at the first record that is not whole, and deletes a
// stream that it cannot open: without it, one flipped bit would cost everything
// that was stored behind it. Nothing else in Trunkline knows the format.
package filestore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sync/errgroup"
)

// EachBlock calls f with each block of each stream of a store. It calls f for several
// blocks at the same time, as many as there are processors, and has that many in
// memory. It returns the first error.
func EachBlock(store string, f func(*Block) error) error {
	paths, err := filepath.Glob(filepath.Join(store, "*", "streams", "*", "msgs", "*.blk"))
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
			return f(b)
		})
	}
	return g.Wait()
}

// blockIndex is 17 for 17.blk.
func blockIndex(path string) int {
	index, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".blk"))
	return index
}

// Unmade reports whether dir is what is left of a stream that was never made in
// full, for example because of a power cut: a file of its definition is missing or
// empty, and so are all files that could have messages.
func Unmade(dir string) bool {
	defined := true
	for _, name := range []string{server.JetStreamMetaFile, server.JetStreamMetaFileSum} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return false
		}
		defined = defined && err == nil && info.Size() > 0
	}
	if defined {
		return false
	}
	found := false
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == server.JetStreamMetaFile || entry.Name() == server.JetStreamMetaFileSum {
			return err
		}
		info, err := entry.Info()
		found = found || err == nil && info.Size() > 0
		return err
	})
	return err == nil && !found
}

// Streams lists the streams of a store, as account/streams/name.
func Streams(store string) (all []string, err error) {
	accounts, err := entries(store)
	for _, account := range accounts {
		dir := filepath.Join(account, "streams")
		names, listErr := entries(filepath.Join(store, dir))
		err = errors.Join(err, listErr)
		for _, name := range names {
			if !strings.HasPrefix(name, ".") { // what the engine deletes
				all = append(all, filepath.Join(dir, name))
			}
		}
	}
	return all, err
}

// entries lists the names in a directory; none if it is not there or no directory.
func entries(dir string) (names []string, err error) {
	all, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("look for streams: %w", err)
	}
	for _, entry := range all {
		names = append(names, entry.Name())
	}
	return names, nil
}
