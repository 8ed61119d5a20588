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

// mapSize is the address space kept for a file. As long as a file fits, bbolt
// never maps it anew, for which it would wait for every open View and hold up
// every new one.
const mapSize = 8 << 30

// lockTimeout is how long a file that is still held, by a process about to
// end, is waited for.
const lockTimeout = 2 * time.Second

// store is one open bbolt file. Once it is retired, its last reader closes it.
type store struct {
	db *bolt.DB

	mu      sync.Mutex
	readers int
	retired bool
	closed  chan struct{}
	err     error // of closing
}

var errDamaged = errors.New("file is damaged")

// openStore opens a file and makes it if it is missing. With durable, every
// commit is synced. errDamaged means that its content cannot be read, and not
// that it cannot be reached.
func openStore(path string, durable bool) (*store, error) {
	db, err := openDB(path, durable, mapSize)
	if errors.Is(err, syscall.ENOMEM) {
		db, err = openDB(path, durable, 0)
	}
	if err != nil {
		return nil, err
	}
	return &store{db: db, closed: make(chan struct{})}, nil
}

func openDB(path string, durable bool, mapped int) (db *bolt.DB, err error) {
	var file *os.File
	// bbolt panics on damaged pages, and a page beyond the end of a file that
	// was cut faults.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if file != nil {
				file.Close() // and with it its lock
			}
			db, err = nil, fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	if mapped > math.MaxInt32 && math.MaxInt == math.MaxInt32 {
		mapped = 0
	}
	db, err = bolt.Open(path, 0o600, &bolt.Options{
		Timeout:         lockTimeout,
		NoSync:          !durable,
		NoGrowSync:      !durable,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mapped,
		NoStatistics:    true,
		OpenFile: func(name string, flag int, mode os.FileMode) (opened *os.File, err error) {
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		},
	})
	var errno syscall.Errno
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: another process has it open", path)
	case errors.As(err, &errno):
		return nil, fmt.Errorf("open %s: %w", path, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %v", errDamaged, err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		info, err := os.Stat(path)
		if err == nil && info.Size() < tx.Size() {
			err = fmt.Errorf("%w: %d of %d bytes", errDamaged, info.Size(), tx.Size())
		}
		if err == nil {
			tx.Bucket(booksName) // faults or panics if the root is damaged
		}
		return err
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

// hasSchema says whether the file was folded by schema. A file without
// anything was.
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

// enter registers a reader; leave takes it off again.
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

// retire closes the file as soon as nobody reads it. No reader may enter after.
func (s *store) retire() {
	s.mu.Lock()
	s.retired = true
	last := s.readers == 0
	s.mu.Unlock()
	if last {
		s.close()
	}
}

func (s *store) close() {
	s.err = s.db.Close()
	close(s.closed)
}
