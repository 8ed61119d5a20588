package projection

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// Unwritten is the code of the fault for a file that cannot be written, for example
// because the disk is full. What View shows is old then. Folding continues by itself
// when the file can be written again.
const Unwritten = "projection_unwritten"

// errUnwritten says that a transaction could not be committed. No part of it is in
// the file.
var errUnwritten = errors.New("file cannot be written")

// trouble is why a file cannot be written, if it cannot.
type trouble struct {
	err   error
	since chan struct{} // closed when there is an err
}

// Err is nil while the file can be written, and otherwise a fault with the code
// Unwritten.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trouble.fault()
}

func (t trouble) fault() error {
	if t.err == nil {
		return nil
	}
	return fault.New(fault.Unavailable, Unwritten, "What is stored cannot be folded: a projection's disk is full or cannot be written").With(t.err)
}

// inTrouble notes that the file could not be written, or with nil that it was. It
// wakes those who wait for events, so that they can fail.
func (f *File) inTrouble(err error) {
	f.mu.Lock()
	before := f.trouble.err
	f.trouble.err = err
	switch {
	case before == nil && err != nil:
		close(f.trouble.since)
	case before != nil && err == nil:
		f.trouble.since = make(chan struct{})
	}
	f.mu.Unlock()
	switch {
	case before == nil && err != nil:
		f.o.Log.Error("projection cannot be written, trying again until it can", zap.String("file", f.path), zap.Error(err))
	case before != nil && err == nil:
		f.o.Log.Info("projection is written again", zap.String("file", f.path))
	}
}

// maxWritePause is the longest pause before a write is tried again.
const maxWritePause = 5 * time.Second

// insist calls write until it succeeds, or fails for another reason than the disk.
func (f *File) insist(ctx context.Context, write func() error) error {
	for pause := minPause; ; pause = min(2*pause, maxWritePause) {
		err := write()
		if !ofDisk(err) {
			f.inTrouble(nil)
			return err
		}
		f.inTrouble(err)
		again := time.NewTimer(pause)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				again.Stop()
				return ctx.Err()
			case work := <-f.between:
				work(ctx)
			case <-again.C:
				waiting = false
			}
		}
	}
}

// ofDisk reports whether an error will pass when the disk has room, or can be written,
// again.
func ofDisk(err error) bool {
	var errno syscall.Errno
	return errors.Is(err, errUnwritten) || errors.As(err, &errno)
}

// unwritten marks an error of a commit.
func unwritten(err error) error { return fmt.Errorf("%w: %w", errUnwritten, err) }
