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
	// Name is the connection's, and of the key in a directory NKey.
	Name string
	// NKey is a file that holds an nkey's seed, or a directory that holds one
	// for each name, as in ingress.nk.
	NKey string
	// Creds is a file with a JWT and its seed.
	Creds string
	// CA is a file with the certificates that the engines' are checked by;
	// empty: the system's. Cert and Key are the files of an own certificate.
	CA, Cert, Key string
	// Once fails at once where no engine can be reached, instead of trying on.
	Once bool
	// Log takes when the engine is lost and found; nil drops it.
	Log *zap.Logger
}

const (
	// A node that stands still, or the way to it, goes without a word: it is
	// given up after two pings without an answer.
	pingEvery = 2 * time.Second
	mostPings = 2
	// dialTimeout is for one node: the next may answer.
	dialTimeout = 2 * time.Second
)

// Join connects to engines that run elsewhere. Unless Once is set it comes back
// before there is a connection, and finds one as soon as an engine can be
// reached, now and after every break. It buffers nothing meanwhile, as Connect
// does.
//
// What is asked under a name is answered to inboxes of that name only,
// _INBOX.<name>.>, so that an engine can keep the parts apart.
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
		nats.IgnoreAuthErrorAbort(), // a node may learn of the key later
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

// access is how the connection says who it is, and knows whom it speaks to.
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
	// Read here, so that a wrong file is an error and not a connection that
	// never comes.
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

// private refuses a key that all can read. Its group may: that is how secrets
// are mounted into a container.
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
