package releases

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/object"
	"github.com/trunkline-sms/trunkline/streams/request"
)

const (
	suffix    = ".apk"
	unfinMark = "copying-" // begins the name of a copy that is not whole
	// copyWithin bounds the copy of one file.
	copyWithin = 10 * time.Minute
	// Limit: a copy out of the store that failed is tried again after 30 s, so that downloads do not read a damaged
	// file over and over. Beyond it: until then, downloads get the same answer.
	// Used up by: a damaged file, or a store that is away. Hurts: downloads of that release. Test: TestDownload_Damaged.
	failedFor = 30 * time.Second
)

// copied is a file that is being copied, or has been.
type copied struct {
	done  chan struct{} // closed at the end
	err   error         // read after done
	until time.Time     // a failure holds so long
}

// copyOf gives a release's copy, and begins it if it has not begun.
func (r *Releases) copyOf(v request.AppVersion) (*copied, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.copies[v.SHA256]; c != nil && !c.stale(r.now()) {
		return c, nil
	}
	if r.running == nil || r.running.Err() != nil {
		return nil, later(errNotCopied, errors.New("stopping"))
	}
	c := &copied{done: make(chan struct{})}
	r.copies[v.SHA256] = c
	ctx := r.running
	r.copying.Go(func() {
		defer close(c.done)
		if err := r.copy(ctx, v); err != nil {
			if ctx.Err() == nil {
				r.log.Error("release not copied out of the store", zap.Stringer("code", v.Code), zap.Error(err))
			}
			c.until = r.now().Add(failedFor)
			if errors.Is(err, object.ErrDamaged) || errors.Is(err, object.ErrNotFound) {
				c.err = errDamaged.With(err)
			} else {
				c.err = later(errNotCopied, err)
			}
		}
	})
	return c, nil
}

// stale says whether a copy failed so long ago that it is worth another try.
func (c *copied) stale(now time.Time) bool {
	select {
	case <-c.done:
		return c.err != nil && !now.Before(c.until)
	default:
		return false
	}
}

func (r *Releases) forget(v request.AppVersion, c *copied) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.copies[v.SHA256] == c {
		delete(r.copies, v.SHA256)
	}
}

// copy copies the file out of the store, unless it is there with the bytes that were published.
func (r *Releases) copy(ctx context.Context, v request.AppVersion) error {
	ctx, cancel := context.WithTimeout(ctx, copyWithin)
	defer cancel()
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fmt.Errorf("make a place for releases: %w", err)
	}
	r.tidy(ctx)
	// An earlier process may have copied it, and the disk may have damaged it since.
	if same, err := hasDigest(r.path(v), v.SHA256); err != nil || same {
		return err
	}
	if err := r.room(); err != nil {
		return err
	}
	stored, err := r.store.Find(ctx, v.Object)
	if err != nil {
		return err
	}
	if stored.SHA256 != v.SHA256 || stored.Size != v.Size {
		return fmt.Errorf("%w: it is another file", object.ErrDamaged)
	}
	file, err := os.CreateTemp(r.dir, unfinMark)
	if err != nil {
		return fmt.Errorf("make a copy: %w", err)
	}
	err = errors.Join(r.store.Read(ctx, stored, file, nil), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), r.path(v))
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

// tidy removes copies of releases that are gone, and copies that were never finished.
func (r *Releases) tidy(ctx context.Context) {
	all, err := r.All(ctx)
	if err != nil {
		return
	}
	kept := map[string]bool{}
	for _, v := range all {
		kept[v.SHA256+suffix] = true
	}
	files, err := os.ReadDir(r.dir)
	if err != nil {
		return
	}
	for _, file := range files {
		name := file.Name()
		if !kept[name] && (strings.HasSuffix(name, suffix) || strings.HasPrefix(name, unfinMark)) {
			// A download that has the file open is not disturbed.
			if err := os.Remove(filepath.Join(r.dir, name)); err != nil {
				r.log.Warn("copy of a release not removed", zap.Error(err))
			}
		}
	}
}

// hasDigest says whether a file is there and has a digest.
func hasDigest(path, want string) (bool, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for a copy: %w", err)
	}
	defer func() { _ = file.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return false, nil // the disk cannot read it, but may be able to write it again
	}
	return hex.EncodeToString(sum.Sum(nil)) == want, nil
}
