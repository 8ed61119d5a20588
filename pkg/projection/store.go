package projection

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// If a file grows beyond its address space, bbolt maps it again. For that it waits for
// every open View, and new ones wait for it.
//
// Limit: the file of a projection has 8 GiB of address space. Beyond it: it grows on,
// with pauses.
// Used up by: all accounts together. Hurts: all accounts: their pulls pause while it
// grows. Test: TestLongView.
const mapSize = 8 << 30

// lockTimeout is how long Open waits for a file that another process still has open,
// because it is about to end.
const lockTimeout = 2 * time.Second

// store is one open bbolt file. Once it is retired, its last reader closes it.
type store struct {
	db *bolt.DB

	mu      sync.Mutex
	readers int
	retired bool
	closed  chan struct{}
	err     error // of closing it
}

var errDamaged = errors.New("file is damaged")

// openStore opens a file, and makes it if it is missing. A file that was not closed is
// read as a whole first. errDamaged means that its content is damaged; with any other
// error the file could not be read. With durable, every commit is synced.
func openStore(path string, durable, closed bool) (*store, error) {
	if err := inspect(path, !closed); err != nil {
		return nil, err
	}
	db, err := openDB(path, bolt.Options{
		NoSync:     !durable,
		NoGrowSync: !durable,
		// The list of free pages is only written when the file is closed. To write it
		// with every commit would cost more than the commit.
		NoFreelistSync:  !durable,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mapSize,
	})
	if err != nil {
		return nil, err
	}
	return &store{db: db, closed: make(chan struct{})}, nil
}

// inspect looks for damage on which bbolt would panic later, in a goroutine where that
// cannot be caught.
func inspect(path string, whole bool) error {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	db, err := openDB(path, bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return guard(func() error {
		return db.View(func(tx *bolt.Tx) error {
			if info.Size() < tx.Size() {
				return fmt.Errorf("%w: %d of %d bytes", errDamaged, info.Size(), tx.Size())
			}
			tx.Bucket(booksName)
			if whole {
				for range entries(tx) {
				}
			}
			return nil
		})
	})
}

// guard turns what damaged pages cause into errDamaged: a panic in bbolt, or a memory
// fault where the file ends too early.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return f()
}

func openDB(path string, o bolt.Options) (db *bolt.DB, err error) {
	var file *os.File
	o.Timeout = lockTimeout
	o.NoStatistics = true
	o.OpenFile = func(name string, flag int, mode os.FileMode) (opened *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	if math.MaxInt == math.MaxInt32 {
		o.InitialMmapSize = 0
	}
	err = guard(func() error {
		db, err = bolt.Open(path, 0o600, &o)
		return err
	})
	var errno syscall.Errno
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, errDamaged): // after a panic the file is still open
		file.Close()
		return nil, err
	case errors.Is(err, syscall.ENOMEM) && o.InitialMmapSize > 0:
		o.InitialMmapSize = 0
		return openDB(path, o)
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: another process has it open", path)
	case errors.As(err, &errno):
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return nil, fmt.Errorf("%w: %w", errDamaged, err)
}

// hasSchema reports whether the file was folded by schema. That is true of an empty
// file.
func (s *store) hasSchema(schema []byte) (bool, error) {
	same := false
	err := s.db.View(func(tx *bolt.Tx) error {
		if b := tx.Bucket(booksName); b != nil {
			same = bytes.Equal(b.Get(schemaKey), schema)
			return nil
		}
		first, _ := tx.Cursor().First()
		same = first == nil
		return nil
	})
	return same, err
}

// begin writes the schema into a file that has none.
func (s *store) begin(schema []byte) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(booksName)
		if err != nil {
			return err
		}
		return b.Put(schemaKey, schema)
	})
}

// enter counts a reader in, and leave counts it out.
func (s *store) enter() {
	s.mu.Lock()
	s.readers++
	s.mu.Unlock()
}

func (s *store) leave() {
	s.mu.Lock()
	s.readers--
	last := s.retired && s.readers == 0
	s.mu.Unlock()
	if last {
		s.close()
	}
}

// retire closes the file as soon as nobody reads it. No reader may enter after that.
func (s *store) retire() {
	s.mu.Lock()
	s.retired = true
	last := s.readers == 0
	s.mu.Unlock()
	if last {
		s.close()
	}
}

// sync writes everything that is not on the disk yet, before a clean close.
func (s *store) sync() error {
	s.db.NoFreelistSync = false
	err := s.db.Update(func(*bolt.Tx) error { return nil })
	if err == nil {
		err = s.db.Sync()
	}
	return err
}

func (s *store) close() {
	s.err = s.db.Close()
	close(s.closed)
}
