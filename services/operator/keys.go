package operator

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
)

// Keys makes what a cluster's nodes and parts know each other by.
type Keys struct {
	Dir  string   `arg:"" help:"Directory for the files. What is there already stays as it is."`
	Host []string `help:"Names and addresses by which nodes are reached, beside localhost and 127.0.0.1."`
	// Owner is for containers, whose user is not the one who makes the keys.
	Owner int `default:"-1" placeholder:"UID" help:"Number of the user who is to own the files."`
}

// Help shows how it is called.
func (Keys) Help() string {
	return `Makes one nkey for each part (ingress.nk and so on), keys.env with their public halves for the nodes, and the
nodes' certificate (node.pem, node.key) with the authority that signed it (ca.pem, ca.key). To renew the certificate,
remove node.pem and run it again.

Example:

    trunkline keys ./secrets --host nats-1 --host nats-2 --host nats-3`
}

// keyed are those that have a key of their own on a cluster.
var keyed = []string{"ingress", "quota", "dispatcher", "version", operatorName}

const (
	authorityYears = 10
	nodeYears      = 2
)

// Run makes what is missing.
func (c *Keys) Run(_ context.Context, t *Terminal) error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil { //nolint:gosec // the keys in it are private each
		return fmt.Errorf("make %s: %w", c.Dir, err)
	}
	if err := c.nkeys(); err != nil {
		return err
	}
	authority, key, err := c.authority()
	if err != nil {
		return err
	}
	if err := c.node(authority, key); err != nil {
		return err
	}
	if err := c.own(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.Out, "The keys are in %s.\n", c.Dir)
	return err
}

// own gives the files that were made to their owner.
func (c *Keys) own() error {
	if c.Owner < 0 {
		return nil
	}
	files := []string{"ca.pem", "ca.key", "node.pem", "node.key"}
	for _, name := range keyed {
		files = append(files, name+".nk")
	}
	for _, name := range files {
		if err := os.Chown(c.path(name), c.Owner, c.Owner); err != nil {
			return fmt.Errorf("give %s to user %d: %w", name, c.Owner, err)
		}
	}
	return nil
}

func (c *Keys) path(name string) string { return filepath.Join(c.Dir, name) }

// keep writes a file unless there is one.
func (c *Keys) keep(name string, mode os.FileMode, content []byte) error {
	file, err := os.OpenFile(c.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err == nil {
		_, err = file.Write(content)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (c *Keys) nkeys() error {
	var public strings.Builder
	for _, name := range keyed {
		made, err := nkeys.CreateUser()
		if err != nil {
			return fmt.Errorf("make nkey: %w", err)
		}
		seed, err := made.Seed()
		if err != nil {
			return fmt.Errorf("make nkey: %w", err)
		}
		if err := c.keep(name+".nk", 0o600, append(seed, '\n')); err != nil {
			return err
		}
		stored, err := os.ReadFile(c.path(name + ".nk"))
		if err != nil {
			return fmt.Errorf("read nkey: %w", err)
		}
		key, err := nkeys.ParseDecoratedUserNKey(bytes.TrimSpace(stored))
		if err != nil {
			return fmt.Errorf("read nkey %s: %w", c.path(name+".nk"), err)
		}
		id, err := key.PublicKey()
		if err != nil {
			return fmt.Errorf("read nkey: %w", err)
		}
		fmt.Fprintf(&public, "%s_KEY=%s\n", strings.ToUpper(name), id)
	}
	if err := os.WriteFile(c.path("keys.env"), []byte(public.String()), 0o644); err != nil { //nolint:gosec // public keys
		return fmt.Errorf("write public keys: %w", err)
	}
	return nil
}

// authority reads or makes the certificate that signs the nodes'.
func (c *Keys) authority() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Trunkline cluster"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(authorityYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if _, err := os.Stat(c.path("ca.pem")); errors.Is(err, os.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, fmt.Errorf("make authority: %w", err)
		}
		if err := c.certify("ca", template, template, key, key); err != nil {
			return nil, nil, err
		}
	}
	certificate, err := readPEM(c.path("ca.pem"), x509.ParseCertificate)
	if err != nil {
		return nil, nil, err
	}
	key, err := readPEM(c.path("ca.key"), x509.ParseECPrivateKey)
	return certificate, key, err
}

func (c *Keys) node(authority *x509.Certificate, signer *ecdsa.PrivateKey) error {
	if _, err := os.Stat(c.path("node.pem")); err == nil {
		return nil
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Trunkline node"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(nodeYears, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature,
		// Nodes are each other's clients, too.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, host := range c.Host {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	if err := os.Remove(c.path("node.key")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace certificate: %w", err)
	}
	return c.certify("node", template, authority, key, signer)
}

// certify writes a key and its signed certificate.
func (c *Keys) certify(name string, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) error {
	signed, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return fmt.Errorf("sign certificate: %w", err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	if err := c.keep(name+".key", 0o600, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret})); err != nil {
		return err
	}
	return c.keep(name+".pem", 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}))
}

func readPEM[T any](path string, parse func([]byte) (T, error)) (parsed T, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return parsed, fmt.Errorf("read %s: %w", path, err)
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return parsed, fmt.Errorf("read %s: it holds no PEM", path)
	}
	if parsed, err = parse(block.Bytes); err != nil {
		return parsed, fmt.Errorf("read %s: %w", path, err)
	}
	return parsed, nil
}
