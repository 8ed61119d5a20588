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

// MaxBatchSize is how many messages the engine takes in an atomic batch: 1,000 and
// a marker, rounded up.
const MaxBatchSize = 1024

// MaxPayload is the size of the largest message that the engine carries, in bytes: a
// page of 200 of the longest texts, as JSON in JSON, and some more.
//
// Limit: one message of the engine, such as a page on its way to a phone, has at most
// 8 MiB. Beyond it: never reached: a page of 200 of the longest texts fits.
// Used up by: a single answer, which the bounds of pages and lists keep below that.
// Hurts: nobody. Test: TestPageOfTheLongestTexts.
const MaxPayload = 8 << 20

const (
	// Only consumers have their state in memory, no stream has.
	maxMemory = 64 << 20
	// Recovery reads all of the streams, which takes a while on a slow disk.
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
	// InProcessOnly: the engine does not listen on 127.0.0.1, so only Connect
	// reaches it. Simulated time needs this.
	InProcessOnly bool
	// Durability is "sync" (default: an answer means synced to the disk) or
	// "process" (an answer means written to the page cache).
	Durability string
	// MaxStore bounds the bytes of all streams together; 0 leaves it to the
	// streams' own limits.
	MaxStore int64
	// ReservePercent of the disk, or ReserveBytes if that is more, is the reserve
	// that senders leave free, see Disk; both 0: none.
	ReservePercent int
	ReserveBytes   int64
	// Log gets the log lines of the engine too; nil drops all.
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
	alarm chan struct{} // has a token when the engine has logged a warning or an error

	stop      sync.Once
	endTend   context.CancelFunc
	tendEnded chan struct{}

	mu     sync.Mutex
	server *server.Server
	conns  []*nats.Conn
}

// Start locks the data directory and starts the engine on it. The engine is ready
// for connections when Start returns. It fails if another process, or this one,
// already runs an engine on the directory. Damaged files are set aside first, see
// package filestore.
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
	if err := s.retainStreams(); err != nil {
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

// engine gives the engine that runs, or that ran last.
func (s *Server) engine() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

func engineOptions(o Options, public string) *server.Options {
	maxStore := o.MaxStore
	if maxStore <= 0 {
		// By default the engine takes a part of what is free on the disk at its start.
		// If that is less than before, it would reject streams that exist.
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

// Connect opens an in-process connection with a name. Nothing is buffered while the
// engine is away: a publish fails, instead of being sent later. Stop closes the
// connection if its user has not.
func (s *Server) Connect(name string) (*nats.Conn, error) { return s.ConnectBy(name, s) }

// ConnectBy is Connect through way, which must lead to InProcessConn. Tests use it to
// lose or delay what is sent.
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

// InProcessConn opens a raw connection to the engine, for nats.InProcessServer.
func (s *Server) InProcessConn() (net.Conn, error) {
	return s.engine().InProcessConn()
}

// URL is the address on which the engine listens, empty with InProcessOnly.
func (s *Server) URL() string {
	engine := s.engine()
	if engine.Addr() == nil {
		return ""
	}
	return engine.ClientURL()
}

// Disk is the file system that the engine writes to.
func (s *Server) Disk() *Disk { return s.disk }

// Stop closes the connections, shuts the engine down and unlocks the data
// directory. Nothing of the engine runs afterwards. A second call does nothing.
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

// connOptions are the options of connections to an engine with our own key.
func connOptions(name string, key nkeys.KeyPair, log *zap.Logger) []nats.Option {
	public, err := key.PublicKey()
	if err != nil {
		return []nats.Option{func(*nats.Options) error { return fmt.Errorf("read engine key: %w", err) }}
	}
	return append(commonOptions(name, log.With(zap.String("connection", name))), nats.Nkey(public, key.Sign))
}

// commonOptions are the options of all connections: they buffer nothing while the
// engine is away, and try for ever to find it again.
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

// makePrivate makes a directory that only its owner can open. If it is there
// already, it is closed to others.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("close %s to others: %w", dir, err)
	}
	return nil
}
