// Package operator is the code of the commands that look into a running server
// and change it: accounts, messages, projections, streams.
package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
)

// Commands are the operator's commands, for the root of a command line.
type Commands struct {
	Account    Account    `cmd:"" help:"Tenants: their tokens, plans and subscriptions."`
	Device     Device     `cmd:"" help:"Phones: their own logins."`
	Message    Message    `cmd:"" help:"Messages: where they stand, offer them again, take them back."`
	Release    Release    `cmd:"" help:"Releases of the gateway app: publish, activate, withdraw them."`
	Projection Projection `cmd:"" help:"Projections: verify, rebuild or dump them."`
	Stream     Stream     `cmd:"" help:"Streams: what the engine holds, and how."`
	Keys       Keys       `cmd:"" help:"Make the keys and certificates of a cluster."`
}

// Terminal is where a command reads and writes.
type Terminal struct {
	In       io.Reader
	Out, Err io.Writer
}

// server says which server a command talks to.
type server struct {
	Data  string   `default:"./data" env:"TRUNKLINE_DATA" placeholder:"DIR" help:"Data directory of the server (default ./data)."`
	NATS  []string `name:"nats" env:"TRUNKLINE_NATS_URLS" placeholder:"URLS" help:"Nodes of the cluster, where the parts run apart; then --data is not used."`
	NKey  string   `name:"nkey" env:"TRUNKLINE_NATS_NKEY" placeholder:"FILE" help:"File with the nkey's seed, or a directory with operator.nk."`
	Creds string   `name:"creds" env:"TRUNKLINE_NATS_CREDS" placeholder:"FILE" help:"File with credentials, instead of an nkey."`
	CA    string   `name:"ca" env:"TRUNKLINE_NATS_CA" placeholder:"FILE" help:"File with the certificates that the nodes are checked by."`
}

// operatorName is a command's among the parts of a cluster.
const operatorName = "operator"

// dial connects to the server. Whoever called closes the connection.
func (s server) dial() (*bus.Bus, func(), error) {
	conn, err := s.connect()
	if err != nil {
		return nil, nil, err
	}
	b, err := bus.New(conn)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return b, conn.Close, nil
}

func (s server) connect() (*nats.Conn, error) {
	if len(s.NATS) > 0 {
		return natsd.Join(natsd.JoinOptions{URLs: s.NATS, Name: operatorName, NKey: s.NKey, Creds: s.Creds, CA: s.CA, Once: true})
	}
	conn, err := natsd.Dial(s.Data, "trunkline command")
	if err != nil {
		return nil, fmt.Errorf("find the server of %s: %w", s.Data, err)
	}
	return conn, nil
}

// asJSON is the flag of every command that prints data.
type asJSON struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// plain turns the error of a service into a line for people.
func plain(err error) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}
	if f.Kind == fault.Unavailable {
		return fmt.Errorf("the server does not answer (%s): see its log, and its /health/ready", f.Text)
	}
	return errors.New(f.Text)
}

// callTimeout bounds a question that is answered from memory or one file.
const callTimeout = 10 * time.Second

func call[A, Q any](ctx context.Context, b *bus.Bus, subject string, q Q) (A, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := bus.Call[A](ctx, b, subject, q)
	return answer, plain(err)
}
