package natsd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"
)

// keyFile has the seed of the engine's only user.
const keyFile = "engine.nk"

// ErrNotRunning says that no server runs on a data directory.
var ErrNotRunning = errors.New("no server is running on this data directory: start one with `trunkline serve`")

// Dial connects to the engine that another process runs on the data directory
// dir. It finds address and key there. The error is ErrNotRunning if no process
// does.
func Dial(dir, name string) (*nats.Conn, error) {
	url, err := readAddress(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("read address of the server: %w", err)
	}
	key, err := readKey(dir)
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect(url, connOptions(name, key, zap.NewNop())...)
	if errors.Is(err, nats.ErrNoServers) {
		return nil, ErrNotRunning // a killed server leaves its address behind
	}
	if errors.Is(err, nats.ErrAuthorization) {
		return nil, fmt.Errorf("the server at %s does not know the key in %s: it runs on another data directory", url, filepath.Join(dir, keysDir))
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", url, err)
	}
	return conn, nil
}

func readAddress(dir string) (string, error) {
	content, err := os.ReadFile(filepath.Join(dir, addressFile))
	if err != nil {
		return "", err
	}
	url, _, _ := strings.Cut(string(content), "\n")
	if url = strings.TrimSpace(url); url == "" {
		return "", os.ErrNotExist
	}
	return url, nil
}

func writeAddress(dir, url string) error {
	path := filepath.Join(dir, addressFile)
	if err := writeWhole(path, []byte(url+"\n")); err != nil {
		return fmt.Errorf("write address: %w", err)
	}
	return nil
}

// readKey reads the engine's key. It must not be readable by others.
func readKey(dir string) (nkeys.KeyPair, error) {
	path := filepath.Join(dir, keysDir, keyFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read engine key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("engine key %s can be read by others: run chmod 600 on it", path)
	}
	seed, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read engine key: %w", err)
	}
	key, err := nkeys.ParseDecoratedUserNKey(seed)
	if err != nil {
		return nil, fmt.Errorf("read engine key %s: %w", path, err)
	}
	return key, nil
}

// loadOrMakeKey reads the engine's key, and makes one in a new data directory.
func loadOrMakeKey(dir string) (nkeys.KeyPair, error) {
	key, err := readKey(dir)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	key, err = nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("make engine key: %w", err)
	}
	seed, err := key.Seed()
	if err != nil {
		return nil, fmt.Errorf("make engine key: %w", err)
	}
	if err := writeWhole(filepath.Join(dir, keysDir, keyFile), append(seed, '\n')); err != nil {
		return nil, fmt.Errorf("write engine key: %w", err)
	}
	return key, nil
}

// writeWhole writes a private file in one step: a reader sees all of it or nothing.
func writeWhole(path string, content []byte) error {
	return renameio.WriteFile(path, content, 0o600, renameio.WithTempDir(filepath.Dir(path)))
}
