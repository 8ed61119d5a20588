// Package natsd runs the NATS engine inside this process, on one data directory.
package natsd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"
)

// MaxBatchSize is the largest atomic batch the engine takes: 1,000 items and
// a marker, rounded up.
const MaxBatchSize = 1024

// MaxPayload is the largest message the engine carries, in bytes: a page of
// 200 of the longest texts, as JSON in JSON, and some more. Used up by a
// single answer, which the bounds of pages and lists keep below it.
const MaxPayload = 8 << 20

const (
	// Consumers keep their state in memory; no stream does.
	maxMemory = 64 << 20
	// Recovery reads what the streams hold, which on a slow disk takes a while.
	readyTimeout = 2 * time.Minute
)

// Names inside the data directory.
const (
	engineDir   = "engine"
	keysDir     = "keys"
	lockFile    = "lock"
	addressFile = "address"
)

// Options say how the engine runs.
type Options struct {
	// Dir is the data directory. It is made if it does not exist.
	Dir string
	// InProcessOnly leaves out the listener on 127.0.0.1: only Connect reaches
	// the engine then. Simulated time needs this.
	InProcessOnly bool
	// Durability is "sync" (default: an answer means synced to the disk) or
	// "process" (an answer means written to the page cache).
	Durability string
	// MaxStore bounds the bytes of all streams together; 0 leaves it to the
	// streams' own limits.
	MaxStore int64
	// ReservePercent of the disk, or ReserveBytes if that is more, are what
	// Disk keeps from senders; both 0: nothing.
	ReservePercent int
	ReserveBytes   int64
	// Log takes the engine's own lines; nil drops them.
	Log *zap.Logger
}

// Server is a running engine that owns its data directory.
type Server struct {
	o     Options
	dir   string
	key   nkeys.KeyPair
	lock  *lock
	disk  *Disk
	log   *zap.Logger
	alarm chan struct{} // has a token when the engine complained

	stop      sync.Once
	endTend   context.CancelFunc
	tendEnded chan struct{}

	mu     sync.Mutex
	server *server.Server
	conns  []*nats.Conn
}

// Start takes the data directory's lock and starts the engine on it. The
// engine is ready for connections when Start returns. It fails when another
// process, or this one, already runs an engine on the directory.
func Start(o Options) (*Server, error) {
	if o.Dir == "" {
		return nil, errors.New("start engine: no data directory given")
	}
	if o.Durability != "" && o.Durability != "sync" && o.Durability != "process" {
		return nil, fmt.Errorf("start engine: durability %q is neither sync nor process", o.Durability)
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := takeLock(o.Dir)
	if err != nil {
		return nil, err
	}
	s, err := start(o, lock)
	if err != nil {
		lock.release(false)
		return nil, err
	}
	return s, nil
}

func start(o Options, lock *lock) (*Server, error) {
	for _, dir := range []string{engineDir, keysDir} {
		if err := makePrivate(filepath.Join(o.Dir, dir)); err != nil {
			return nil, err
		}
	}
	key, err := loadOrMakeKey(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{
		o: o, dir: o.Dir, key: key, lock: lock, disk: newDisk(o), log: o.Log,
		alarm: make(chan struct{}, 1), tendEnded: make(chan struct{}),
	}
	if err := s.probe(); err != nil {
		return nil, fmt.Errorf("start engine: %w", err)
	}
	if lock.crashed {
		if err := s.checkStreams(); err != nil {
			return nil, err
		}
	}
	if err := s.launch(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.endTend = cancel
	go func() {
		defer close(s.tendEnded)
		s.tend(ctx)
	}()
	return s, nil
}

// launch starts an engine on the directory, and ends it if it does not become
// ready.
func (s *Server) launch() error {
	public, err := s.key.PublicKey()
	if err != nil {
		return fmt.Errorf("read engine key: %w", err)
	}
	engine, err := server.NewServer(engineOptions(s.o, public))
	if err != nil {
		return fmt.Errorf("configure engine: %w", err)
	}
	if err := s.keepStreams(); err != nil {
		return err
	}
	bridge := &logBridge{log: s.log.Named("engine").Sugar(), alarm: s.alarm}
	engine.SetLoggerV2(bridge, false, false, false)
	engine.Start()
	switch {
	case bridge.fatal() != "":
		err = fmt.Errorf("start engine: %s", bridge.fatal())
	case !engine.ReadyForConnections(readyTimeout) || !engine.JetStreamEnabled():
		err = fmt.Errorf("start engine: not ready after %v", readyTimeout)
	default:
		err = s.checkOpen(engine)
	}
	if err == nil && !s.o.InProcessOnly {
		err = writeAddress(s.dir, engine.ClientURL())
	}
	if err != nil {
		engine.Shutdown()
		engine.WaitForShutdown()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = engine
	return nil
}

// engine is the one that runs, or that ran last.
func (s *Server) engine() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

func engineOptions(o Options, public string) *server.Options {
	maxStore := o.MaxStore
	if maxStore <= 0 {
		// The engine's own default is a share of the disk that is free at the
		// start, so that a fuller disk would refuse streams that exist.
		maxStore = math.MaxInt64 / 4
	}
	return &server.Options{
		ServerName:             "trunkline",
		Host:                   "127.0.0.1",
		Port:                   server.RANDOM_PORT,
		DontListen:             o.InProcessOnly,
		MaxPayload:             MaxPayload,
		Nkeys:                  []*server.NkeyUser{{Nkey: public}},
		JetStream:              true,
		StoreDir:               filepath.Join(o.Dir, engineDir),
		JetStreamMaxStore:      maxStore,
		JetStreamMaxMemory:     maxMemory,
		SyncAlways:             o.Durability != "process",
		JetStreamLimits:        server.JSLimitOpts{DefaultMaxConsumers: -1, MaxBatchSize: MaxBatchSize},
		DisableJetStreamBanner: true,
		NoSigs:                 true,
		NoLog:                  true,
	}
}

// Connect opens an in-process connection named name. It buffers nothing while
// the engine is away: a publish fails then, instead of being sent later. Stop
// closes it if its user has not.
func (s *Server) Connect(name string) (*nats.Conn, error) { return s.ConnectBy(name, s) }

// ConnectBy is Connect by a way of the caller's, which leads to InProcessConn.
func (s *Server) ConnectBy(name string, way nats.InProcessConnProvider) (*nats.Conn, error) {
	opts := append(connOptions(name, s.key, s.log), nats.InProcessServer(way))
	conn, err := nats.Connect("", opts...)
	if err != nil {
		return nil, fmt.Errorf("connect %s to the engine: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, conn)
	return conn, nil
}

// InProcessConn is a raw connection to the engine, for nats.InProcessServer.
func (s *Server) InProcessConn() (net.Conn, error) {
	return s.engine().InProcessConn()
}

// URL is the address the engine listens on, empty with InProcessOnly.
func (s *Server) URL() string {
	engine := s.engine()
	if engine.Addr() == nil {
		return ""
	}
	return engine.ClientURL()
}

// Disk is the file system that the engine writes to.
func (s *Server) Disk() *Disk { return s.disk }

// Stop closes the connections, shuts the engine down and gives the data
// directory free. Nothing of the engine runs afterwards. A second call does
// nothing.
func (s *Server) Stop() {
	s.stop.Do(func() {
		s.endTend()
		<-s.tendEnded
		if err := os.Remove(filepath.Join(s.dir, addressFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("address file not removed", zap.Error(err))
		}
		s.shutdown()
		s.lock.release(true)
	})
}

func (s *Server) shutdown() {
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, conn := range conns {
		conn.Close()
	}
	s.engine().Shutdown()
	s.engine().WaitForShutdown()
}

// connOptions are common to every connection to an engine of ours.
func connOptions(name string, key nkeys.KeyPair, log *zap.Logger) []nats.Option {
	public, err := key.PublicKey()
	if err != nil {
		return []nats.Option{func(*nats.Options) error { return fmt.Errorf("read engine key: %w", err) }}
	}
	return append(commonOptions(name, log.With(zap.String("connection", name))), nats.Nkey(public, key.Sign))
}

// commonOptions are those of any connection: it buffers nothing while the
// engine is away, and tries for ever to find it again.
func commonOptions(name string, log *zap.Logger) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		nats.ReconnectBufSize(-1),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			log.Warn("connection error", zap.String("subject", subject), zap.Error(err))
		}),
	}
}

// makePrivate makes a directory that only its owner can open, and closes one
// that others could.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("close %s to others: %w", dir, err)
	}
	return nil
}
