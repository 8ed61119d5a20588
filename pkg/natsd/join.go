package natsd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"
)

// JoinOptions say how to reach engines that run elsewhere.
type JoinOptions struct {
	// URLs of engines of one cluster; any of them will do.
	URLs []string
	// Name is the name of the connection. If NKey is a directory, it also names the
	// key in it.
	Name string
	// NKey is a file with the seed of an nkey, or a directory with such a file for
	// each name, such as ingress.nk.
	NKey string
	// Creds is a file with a JWT and its seed.
	Creds string
	// CA is a file with the certificates that the engines' certificates are checked
	// against; empty: those of the system. Cert and Key are files with our own
	// certificate.
	CA, Cert, Key string
	// Once: fail where no engine can be reached, instead of trying again.
	Once bool
	// Log gets a line when the engine is lost or found; nil drops it.
	Log *zap.Logger
}

const (
	// A node that stands still, or a network that is cut, does not close the
	// connection: a node is given up after two pings without an answer.
	pingEvery = 2 * time.Second
	mostPings = 2
	// dialTimeout is for one node: the next one may answer.
	dialTimeout = 2 * time.Second
)

// Join connects to engines that run elsewhere. Unless Once is set, it returns
// before there is a connection, and connects as soon as an engine can be reached,
// now and after every break. As with Connect, nothing is buffered meanwhile.
//
// Answers come to inboxes of this name only, _INBOX.<name>.>, so that the engine's
// permissions can keep the parts apart.
func Join(o JoinOptions) (*nats.Conn, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	log := o.Log.With(zap.String("connection", o.Name))
	opts := append(commonOptions(o.Name, log),
		nats.CustomInboxPrefix("_INBOX."+o.Name),
		nats.RetryOnFailedConnect(!o.Once),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(mostPings),
		nats.Timeout(dialTimeout),
		nats.IgnoreAuthErrorAbort(), // a node may be told of the key later
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { log.Warn("engine lost", zap.Error(err)) }),
		nats.ConnectHandler(func(c *nats.Conn) { log.Info("engine found", zap.String("node", c.ConnectedServerName())) }),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Info("engine found again", zap.String("node", c.ConnectedServerName())) }),
	)
	access, err := o.access()
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect(strings.Join(o.URLs, ","), append(opts, access...)...)
	if err != nil {
		return nil, fmt.Errorf("connect %s to %s: %w", o.Name, strings.Join(o.URLs, ", "), err)
	}
	return conn, nil
}

// access gives the options by which the connection authenticates, and checks the
// engine's certificate.
func (o JoinOptions) access() (opts []nats.Option, err error) {
	if o.NKey != "" && o.Creds != "" {
		return nil, errors.New("join engines: give an nkey or credentials, not both")
	}
	if o.NKey != "" {
		key, err := o.nkey()
		if err != nil {
			return nil, err
		}
		public, err := key.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("read nkey of %s: %w", o.Name, err)
		}
		opts = append(opts, nats.Nkey(public, key.Sign))
	}
	if o.Creds != "" {
		if err := private(o.Creds); err != nil {
			return nil, err
		}
		opts = append(opts, nats.UserCredentials(o.Creds))
	}
	if o.CA == "" && o.Cert == "" && o.Key == "" {
		return opts, nil
	}
	// The files are read here, so that a wrong one is an error, and not a connection
	// that never comes.
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("read certificates: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificates: %s holds none", o.CA)
		}
	}
	if o.Cert != "" || o.Key != "" {
		own, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, fmt.Errorf("read own certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	return append(opts, nats.Secure(config)), nil
}

func (o JoinOptions) nkey() (nkeys.KeyPair, error) {
	path := o.NKey
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, o.Name+".nk")
	}
	if err := private(path); err != nil {
		return nil, err
	}
	seed, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read nkey: %w", err)
	}
	key, err := nkeys.ParseDecoratedUserNKey(seed)
	if err != nil {
		return nil, fmt.Errorf("read nkey %s: %w", path, err)
	}
	return key, nil
}

// private rejects a key that everybody can read. Its group may read it: secrets are
// mounted into containers that way.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("key %s can be read by others: run chmod o= on it", path)
	}
	return nil
}
