package projection

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
)

// File is the bbolt file of a projection. Open it, let Run fold, and read with View.
type File struct {
	path       string
	bus        *bus.Bus
	projection Projection
	sources    []Source
	schema     []byte
	o          Options
	boot       string
	positions  map[string]*position

	mu      sync.Mutex
	live    *store // nil once closed
	ready   chan struct{}
	behind  int // streams that still have to catch up before ready is closed
	follow  []*reader
	begun   bool // Run was called
	trouble trouble

	ended  chan struct{} // closed when Run has returned
	runErr error         // what it returned; read after ended

	upkeep  chan struct{}              // holds one token: one Rebuild or Verify at a time
	between chan func(context.Context) // functions that the fold calls between two commits

	// Used by the fold only.
	at      cursors
	applied []Event
}

var (
	errClosed = errors.New("projection is closed")
	errEnded  = errors.New("projection is no longer followed")
)

// Open opens the file at path. If it is missing, damaged, of another schema, or was
// open when the machine lost power, Open begins with an empty one: the projection is
// rebuilt. Nothing is folded before Run.
func Open(path string, b *bus.Bus, p Projection, o Options) (*File, error) {
	f := &File{
		path:      path,
		bus:       b,
		sources:   p.Sources(),
		schema:    schemaOf(p),
		o:         o.withDefaults(),
		boot:      bootID(),
		positions: map[string]*position{},
		ready:     make(chan struct{}),
		ended:     make(chan struct{}),
		trouble:   trouble{since: make(chan struct{})},
		upkeep:    make(chan struct{}, 1),
		between:   make(chan func(context.Context)),
	}
	f.projection = lenient{p, f.o.Log}
	if f.behind = len(f.sources); f.behind == 0 {
		return nil, fmt.Errorf("open projection %s: it reads no stream", path)
	}
	for _, s := range f.sources {
		if f.positions[s.Stream] != nil {
			return nil, fmt.Errorf("open projection %s: stream %s is named twice", path, s.Stream)
		}
		f.positions[s.Stream] = &position{}
	}
	if err := f.open(); err != nil {
		if f.live != nil {
			f.live.retire()
		}
		return nil, fmt.Errorf("open projection: %w", err)
	}
	return f, nil
}

func (f *File) open() error {
	mark, err := readMark(f.path)
	if err != nil {
		return err
	}
	var s *store
	reason := "it was open when the machine went down"
	if mark == "" || mark == f.boot {
		s, reason, err = f.openOld(mark == "")
	}
	if err != nil {
		return err
	}
	if reason != "" {
		f.o.Log.Warn("projection is rebuilt", zap.String("file", f.path), zap.String("reason", reason))
		if err := os.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if s, err = openStore(f.path, f.durable(), true); err != nil {
			return err
		}
	}
	f.live = s
	// A killed process may have left these. Nobody uses them: the lock on the file is
	// ours now.
	for _, leftover := range []string{f.newPath(), f.snapshotPath(), f.verifyPath()} {
		if err := os.Remove(leftover); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if f.boot != "" {
		if err := markOpen(f.path, f.boot); err != nil {
			return err
		}
	}
	if err := dropSum(f.path); err != nil {
		return err
	}
	if err := s.begin(f.schema); err != nil {
		return fmt.Errorf("begin %s: %w", f.path, err)
	}
	return s.db.View(func(tx *bolt.Tx) error {
		at, err := readCursors(tx, f.sources)
		if err != nil {
			return err
		}
		f.at = at
		for stream, c := range at {
			f.positions[stream].advance(c.seq)
		}
		return f.o.Replaced(tx)
	})
}

// openOld opens the file as it is, or gives the reason why it cannot be used.
func (f *File) openOld(closed bool) (s *store, reason string, err error) {
	if closed {
		known, fits, err := checkSum(f.path)
		if err != nil {
			return nil, "", err
		}
		if known && !fits {
			return nil, "its checksum is wrong", nil
		}
		closed = known
	}
	s, err = openStore(f.path, f.durable(), closed)
	if errors.Is(err, errDamaged) {
		return nil, err.Error(), nil
	}
	if err != nil {
		return nil, "", err
	}
	same, err := s.hasSchema(f.schema)
	switch {
	case err != nil:
		err = fmt.Errorf("read schema of %s: %w", f.path, err)
	case !same:
		reason = "its schema is another"
	default:
		return s, "", nil
	}
	s.retire()
	return nil, reason, err
}

func (f *File) newPath() string      { return f.path + ".new" }
func (f *File) snapshotPath() string { return f.path + ".snapshot" }
func (f *File) verifyPath() string   { return f.path + ".verify" }

// durable reports whether every commit must be synced, because a power loss would not
// be noticed afterwards.
func (f *File) durable() bool { return f.boot == "" }

// View calls read with a consistent state of the file. What read gets from bbolt is
// valid until it returns. It may take long: neither commits nor rebuilds wait for it.
func (f *File) View(read func(*bolt.Tx) error) error {
	s, err := f.enter()
	if err != nil {
		return err
	}
	defer s.leave()
	return s.db.View(read)
}

func (f *File) enter() (*store, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.live == nil {
		return nil, errClosed
	}
	f.live.enter()
	return f.live, nil
}

// swap replaces the live file by s, which is at newPath.
func (f *File) swap(s *store) error {
	if err := s.db.View(f.o.Replaced); err != nil {
		return fmt.Errorf("load replaced projection: %w", err)
	}
	if err := os.Rename(f.newPath(), f.path); err != nil {
		return fmt.Errorf("put projection in place: %w", err)
	}
	f.mu.Lock()
	old := f.live
	f.live = s
	f.mu.Unlock()
	old.retire()
	return nil
}

// startOver replaces the live file by an empty one: its streams are not those that
// were folded.
func (f *File) startOver() error {
	s, err := f.openNew(f.newPath())
	if err != nil {
		return err
	}
	// Before the swap: nobody may believe that an event is applied and then not see
	// it.
	f.at = cursors{}
	for _, p := range f.positions {
		p.reset()
	}
	if err := f.swap(s); err != nil {
		s.retire()
		return err
	}
	return nil
}

// openNew opens an empty file to fold into.
func (f *File) openNew(path string) (*store, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	s, err := openStore(path, f.durable(), true)
	if err != nil {
		return nil, err
	}
	if err := s.begin(f.schema); err != nil {
		s.retire()
		return nil, fmt.Errorf("begin %s: %w", path, err)
	}
	return s, nil
}

// Close waits for every open View, and closes the file. Run must have returned, or
// never have been called.
func (f *File) Close() error {
	f.mu.Lock()
	s := f.live
	f.live = nil
	f.mu.Unlock()
	if s == nil {
		return nil
	}
	err := s.sync()
	s.retire()
	<-s.closed
	if err == nil {
		err = s.err
	}
	if err == nil {
		err = writeSum(f.path)
	}
	if err == nil && f.boot != "" {
		err = markClosed(f.path)
	}
	if err != nil {
		return fmt.Errorf("close projection %s: %w", f.path, err)
	}
	return nil
}
