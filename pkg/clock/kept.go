package clock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"go.uber.org/zap"
)

// Names in a data directory.
const (
	// KeptFile holds the latest time that was sure while the directory was used.
	KeptFile = "clock"
	// RightFile is made by an operator who says that the clock is right. It is
	// removed when it has been seen.
	RightFile = "clock-is-right"
)

// keepEvery is how often the time is written.
const keepEvery = time.Minute

// Await returns when the machine's clock is at most Most ahead of the latest
// time that was sure in a data directory, or an operator says that it is right.
// What runs on a wrong clock before it is corrected may drop all that it takes to
// be old. A directory that was used by an earlier version, or never, knows of no
// time, and is not waited for. Await fails only with ctx, and where the file
// cannot be read.
//
// It fills in Known and Right of the options for New, as Find does.
func Await(ctx context.Context, dir string, o Options) (Options, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	for said := false; ; said = true {
		var err error
		if o, err = Find(dir, o); err != nil || o.Right || o.Known.IsZero() {
			return o, err
		}
		wall := o.Now()
		if wall.Round(0).Sub(o.Known) <= Most {
			return o, nil
		}
		if !said {
			o.Log.Error("the clock is far ahead of when this data directory was used last, and the engine is not started, for it would drop all that it then takes to be old: "+
				"set the clock right, or if it is right start with --clock-is-right",
				zap.Time("clock", wall), zap.Time("used_last", o.Known), zap.String("dir", dir))
		}
		if err := Sleep(ctx, lookEvery); err != nil {
			return o, err
		}
	}
}

// Find fills in what a data directory knows of the time, and of what an
// operator says of it.
func Find(dir string, o Options) (Options, error) {
	var err error
	o.Known, err = readKept(dir)
	o.Right = o.Right || saidRight(dir)
	return o, err
}

// Keep follows the machine's clock until ctx is done. It writes the latest time
// that is sure into a data directory, at once, every minute, and in the end, and
// hears an operator who says there that the clock is right.
func (c *Clock) Keep(ctx context.Context, dir string) {
	var failed bool
	write := func() {
		err := writeKept(dir, c.Known())
		if err != nil && !failed {
			c.log.Warn("the time is not kept for the next start", zap.Error(err))
		}
		failed = err != nil
	}
	write()
	written := c.Now()
	for Sleep(ctx, lookEvery) == nil {
		if saidRight(dir) {
			c.Confirm()
			written = time.Time{}
		}
		c.Known()
		if now := c.Now(); now.Sub(written) >= keepEvery {
			write()
			written = now
		}
	}
	write()
}

func saidRight(dir string) bool { return os.Remove(filepath.Join(dir, RightFile)) == nil }

// readKept reads the time kept in a directory, zero if there is none.
func readKept(dir string) (time.Time, error) {
	path := filepath.Join(dir, KeptFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read when the data directory was used last: %w", err)
	}
	at, err := time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
	if err != nil {
		return time.Time{}, fmt.Errorf("read when the data directory was used last: %s holds no time; remove it if the machine's clock is right", path)
	}
	return at, nil
}

// writeKept replaces the file, so that it is whole whenever the power fails.
func writeKept(dir string, at time.Time) error {
	text := at.UTC().Format(time.RFC3339Nano) + "\n"
	if err := renameio.WriteFile(filepath.Join(dir, KeptFile), []byte(text), 0o600, renameio.WithTempDir(dir)); err != nil {
		return fmt.Errorf("write the time: %w", err)
	}
	return nil
}
