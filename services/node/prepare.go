package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/natsd"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
)

// DefaultAccount is the account that a first start makes.
const DefaultAccount = "default"

// createdFile says that a data directory has had all its streams. Streams that
// are missing later were lost, or cannot be read with the key that is there;
// to create them again would destroy what is left of them.
const createdFile = "created"

// releasesFile says the same of what belongs to app releases, which directories
// of the first version lack.
const releasesFile = "created-releases"

// registryFile says the same of the registry and of sessions, which directories
// of the second version lack.
const registryFile = "created-registry"

// prepare makes the engine hold what the services expect. On the first start it
// gives the token of the account it made.
func prepare(ctx context.Context, cfg Config, d Deps, engine *natsd.Server) (secret.String, error) {
	b, err := dial(engine, nil, "start")
	if err != nil {
		return "", err
	}
	defer b.Conn.Close()

	first, err := lacks(cfg, createdFile)
	if err != nil {
		return "", err
	}
	if err := ensureAdded(ctx, cfg, b, first); err != nil {
		return "", err
	}
	if err := streams.EndAge(ctx, b.JS, streams.Shards(cfg.Engine.Shards)); err != nil {
		return "", err
	}
	if err := ensure(ctx, cfg, d.Log, b, first); err != nil {
		return "", err
	}
	if err := dropClaims(ctx, b); err != nil {
		return "", err
	}
	if !first {
		return "", nil
	}
	token, err := makeDefault(ctx, b, d)
	if err != nil {
		return "", err
	}
	if err := syncDirs(cfg.Data); err != nil {
		return "", err
	}
	return token, note(cfg, createdFile)
}

// lacks says whether the directory lacks a file that says what was made.
func lacks(cfg Config, name string) (bool, error) {
	path := filepath.Join(cfg.Data, "engine", name)
	_, err := os.Stat(path)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return err != nil, nil
	}
	return false, fmt.Errorf("look for %s: %w", path, err)
}

func note(cfg Config, name string) error {
	return writeSynced(filepath.Join(cfg.Data, "engine", name), []byte("The streams of this directory were made once and are never made again.\n"))
}

// ensureAdded makes what directories of earlier versions lack, each once. A
// directory whose other streams were lost gets none: ensure names those.
func ensureAdded(ctx context.Context, cfg Config, b *bus.Bus, first bool) error {
	if _, err := streams.FindShards(ctx, b.JS); err != nil && !first {
		return nil
	}
	return errors.Join(
		addOnce(ctx, cfg, b, releasesFile, streams.EnsureReleases),
		addOnce(ctx, cfg, b, registryFile, streams.EnsureRegistry),
	)
}

func addOnce(ctx context.Context, cfg Config, b *bus.Bus, file string, add func(context.Context, jetstream.JetStream, streams.Deployment, bool) error) error {
	missing, err := lacks(cfg, file)
	if err != nil || !missing {
		return err
	}
	if err := add(ctx, b.JS, streams.Deployment{Replicas: 1}, true); err != nil {
		return err
	}
	if err := syncDirs(cfg.Data); err != nil {
		return err
	}
	return note(cfg, file)
}

// ensure makes the streams in a fresh directory. Elsewhere it tells what differs
// from the definitions, which is no reason not to serve.
func ensure(ctx context.Context, cfg Config, log *zap.Logger, b *bus.Bus, create bool) error {
	err := streams.Ensure(ctx, b.JS, streams.Deployment{
		Shards:          streams.Shards(cfg.Engine.Shards),
		Replicas:        1,
		EnqueueMaxBytes: int64(cfg.Engine.EnqueueMaxBytes),
		StatusMaxBytes:  int64(cfg.Engine.StatusMaxBytes),
	}, create)
	problems := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		problems = joined.Unwrap()
	}
	var fatal []error
	for _, problem := range problems {
		var difference *streams.Difference
		if errors.As(problem, &difference) {
			log.Warn("stream differs from its definition and is left as it is",
				zap.String("stream", difference.Stream), zap.Strings("fields", difference.Fields))
			continue
		}
		fatal = append(fatal, problem)
	}
	return errors.Join(fatal...)
}

// dropClaims removes the claims of processes before this one: whoever holds the
// lock of the data directory knows that they are gone.
func dropClaims(ctx context.Context, b *bus.Bus) error {
	claims, err := b.JS.Stream(ctx, "KV_"+streams.ClaimsBucket)
	if err == nil {
		err = claims.Purge(ctx)
	}
	if err != nil {
		return fmt.Errorf("drop old claims: %w", err)
	}
	return nil
}

// makeDefault makes the account to begin with, and gives its token unless an
// earlier first start that broke off has made it.
func makeDefault(ctx context.Context, b *bus.Bus, d Deps) (secret.String, error) {
	book, err := accounts.Open(ctx, b, d.Now)
	if err != nil {
		return "", err
	}
	plan := accounts.DefaultPlan()
	plan.Rate = 0
	made, err := book.Create(ctx, accounts.Spec{Name: DefaultAccount, Plan: plan})
	if errors.Is(err, accounts.ErrTaken) {
		return "", nil
	}
	return made.Token, err
}

// writeSynced writes a file that is there after a power cut.
func writeSynced(path string, content []byte) error {
	dir := filepath.Dir(path)
	err := renameio.WriteFile(path, content, 0o600, renameio.WithTempDir(dir))
	if err == nil {
		err = syncDir(dir) // renameio leaves that to its callers
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// syncDirs makes the names of all directories durable, as far up as they may be
// new: neither the engine nor os.MkdirAll does, and some file systems keep what
// was synced into a directory only if its name was synced as well.
func syncDirs(root string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return fmt.Errorf("sync directories: %w", err)
	}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = syncDir(path)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil // the engine has removed it
		}
		return err
	})
	if err == nil {
		err = syncDir(filepath.Dir(root))
	}
	if err != nil {
		return fmt.Errorf("sync directories of %s: %w", root, err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
