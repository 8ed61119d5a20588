package projection

import (
	"context"
	"fmt"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

// replayBatch is how many events a transaction has when nobody waits for it.
const replayBatch = 4096

// Rebuild folds the streams into a second file, up to where the live one is, and
// replaces the live one by it. Meanwhile the live file is read and folded as always.
// If Rebuild fails, the live file stays. It works only while Run does.
func (f *File) Rebuild(ctx context.Context) error {
	if err := f.rebuild(ctx); err != nil {
		return fmt.Errorf("rebuild projection: %w", err)
	}
	return nil
}

func (f *File) rebuild(ctx context.Context) error {
	done, err := f.takeUpkeep(ctx)
	if err != nil {
		return err
	}
	defer done()
	f.mu.Lock()
	running, before := f.begun, f.live
	f.mu.Unlock()
	if !running {
		return errEnded
	}
	s, err := f.openNew(f.newPath())
	if err != nil {
		return err
	}
	placed := false
	defer func() {
		if !placed {
			s.retire()
			os.Remove(f.newPath())
		}
	}()
	// The live file moves on meanwhile, so the second one follows it several times.
	// Only the last few events are folded while the live one has to wait.
	at := cursors{}
	for range 10 {
		goal, err := f.liveCursors()
		if err != nil {
			return err
		}
		n, err := f.replay(ctx, s, at, goal)
		if err != nil {
			return err
		}
		if n < f.o.BatchMax {
			break
		}
	}
	result := make(chan error, 1)
	finish := func(run context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(run, cancel)()
		result <- f.finishRebuild(ctx, s, at, before)
	}
	select {
	case f.between <- finish:
	case <-ctx.Done():
		return ctx.Err()
	case <-f.ended:
		return f.endError()
	}
	err = <-result
	placed = err == nil
	return err
}

// finishRebuild runs between two commits.
func (f *File) finishRebuild(ctx context.Context, s *store, at cursors, before *store) error {
	if f.live != before {
		return fmt.Errorf("%w while it was folded", errLost)
	}
	if _, err := f.replay(ctx, s, at, f.at); err != nil {
		return err
	}
	return f.swap(s)
}

// Verify folds the streams into a temporary file, exactly up to where the live one is,
// and compares the two. It describes the first difference, or returns nothing if there
// is none. The description quotes the content, so it must not be logged. If the
// beginning of a stream has aged out, the fold begins with what is left. Meanwhile the
// live file is read and folded as always.
func (f *File) Verify(ctx context.Context) (string, error) {
	difference, err := f.verify(ctx)
	if err != nil {
		return "", fmt.Errorf("verify projection: %w", err)
	}
	return difference, nil
}

func (f *File) verify(ctx context.Context) (string, error) {
	done, err := f.takeUpkeep(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	// A copy is compared: with a long transaction on the live file, bbolt could not use
	// its free pages again, and the file would grow.
	defer os.Remove(f.snapshotPath())
	err = f.View(func(tx *bolt.Tx) error { return tx.CopyFile(f.snapshotPath(), 0o600) })
	if err != nil {
		return "", fmt.Errorf("copy live file: %w", err)
	}
	live, err := openDB(f.snapshotPath(), bolt.Options{ReadOnly: true})
	if err != nil {
		return "", err
	}
	defer live.Close()
	defer os.Remove(f.verifyPath())
	rebuilt, err := f.openNew(f.verifyPath())
	if err != nil {
		return "", err
	}
	defer rebuilt.retire()

	var goal cursors
	err = live.View(func(tx *bolt.Tx) error {
		goal, err = readCursors(tx, f.sources)
		return err
	})
	if err != nil {
		return "", err
	}
	if _, err := f.replay(ctx, rebuilt, cursors{}, goal); err != nil {
		return "", err
	}
	difference := ""
	err = live.View(func(a *bolt.Tx) error {
		return rebuilt.db.View(func(b *bolt.Tx) error {
			difference = compare(a, b, f.o.Render)
			return nil
		})
	})
	return difference, err
}

// takeUpkeep waits until no other Rebuild or Verify runs.
func (f *File) takeUpkeep(ctx context.Context) (done func(), err error) {
	select {
	case f.upkeep <- struct{}{}:
		return func() { <-f.upkeep }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *File) liveCursors() (at cursors, err error) {
	err = f.View(func(tx *bolt.Tx) error {
		at, err = readCursors(tx, f.sources)
		return err
	})
	return at, err
}

// replay folds the events from at to goal into a file, and moves at there. Both are
// cursors of the same streams. It returns the number of events applied.
func (f *File) replay(ctx context.Context, s *store, at, goal cursors) (applied int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	q := newQueue()
	g, ctx := errgroup.WithContext(ctx)
	for _, source := range f.sources {
		from, to := at[source.Stream], goal[source.Stream]
		if from.seq >= to.seq {
			continue
		}
		from.created = to.created
		r := newReader(f.bus, f.o.Log, source, q, replayBatch, from, to.seq)
		g.Go(func() error { return r.run(ctx) })
	}
	read := make(chan struct{})
	var readErr error
	go func() {
		readErr = g.Wait()
		close(read)
	}()
	defer func() {
		cancel()
		<-read
	}()

	var items []item
	var events []Event
	for reading := true; reading; {
		select {
		case <-read:
			if readErr != nil {
				return applied, readErr
			}
			reading = false
		case <-q.arrived:
		}
		items = q.take(items)
		for batch := range slices.Chunk(items, replayBatch) {
			events, err = apply(s, f.projection, batch, at, events)
			if err != nil {
				return applied, err
			}
			release(batch)
			applied += len(events)
		}
	}
	// The last events may have aged out meanwhile. Even so, all that is left up to the
	// goal is folded.
	err = s.db.Update(func(tx *bolt.Tx) error {
		for stream, c := range goal {
			if err := writeCursor(tx, stream, c); err != nil {
				return err
			}
			at[stream] = c
		}
		return nil
	})
	return applied, err
}
