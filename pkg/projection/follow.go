package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Run folds the streams into the file until ctx is done, which is no error. At the
// start and after every break of the connection it checks the cursors against the
// streams. If a stream is not the one that was folded, it rebuilds the file from the
// beginning. It waits for a stream that does not exist. Call it once.
func (f *File) Run(ctx context.Context) error {
	f.mu.Lock()
	begun := f.begun
	f.begun = true
	f.mu.Unlock()
	if begun {
		return errors.New("run projection: it was run before")
	}
	err := f.run(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	f.runErr = err
	close(f.ended)
	return err
}

func (f *File) run(ctx context.Context) error {
	for {
		err := f.followStreams(ctx)
		if !errors.Is(err, errLost) {
			return err
		}
		f.o.Log.Warn("projection is rebuilt", zap.String("file", f.path), zap.Error(err))
		f.unready()
		if err := f.insist(ctx, f.startOver); err != nil {
			return err
		}
	}
}

// followStreams reads and folds until a reader or the fold fails, or ctx is done.
func (f *File) followStreams(ctx context.Context) error {
	q := newQueue()
	var readers []*reader
	for _, s := range f.sources {
		readers = append(readers, newReader(f.bus, f.o.Log, s, q, f.pullBatch(), f.at[s.Stream], 0))
	}
	f.setReaders(readers)
	defer f.setReaders(nil)
	for _, p := range f.positions {
		p.wakes(q.arrived)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range readers {
		g.Go(func() error { return r.run(ctx) })
	}
	g.Go(func() error { return f.fold(ctx, q) })
	return g.Wait()
}

// pullBatch is how many events a reader asks for at once. The next ones should have
// come when a transaction is done.
func (f *File) pullBatch() int { return max(f.o.BatchMax, 512) }

// fold applies what has arrived to the live file, transaction by transaction.
func (f *File) fold(ctx context.Context, q *queue) error {
	var items []item
	var committed time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case work := <-f.between:
			work(ctx)
		case <-q.arrived:
			f.gather(ctx, q, committed)
			items = q.take(items)
			for batch := range slices.Chunk(items, f.o.BatchMax) {
				if err := f.commit(ctx, batch); err != nil {
					return err
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
				committed = time.Now()
			}
		}
	}
}

// commit applies a batch to the live file, which it tries until that can be written,
// and wakes everybody who waits for its events.
func (f *File) commit(ctx context.Context, batch []item) error {
	err := f.insist(ctx, func() (err error) {
		f.applied, err = apply(f.live, f.projection, batch, f.at, f.applied)
		return err
	})
	if err != nil {
		return err
	}
	if len(f.applied) > 0 {
		f.o.Committed(f.applied)
	}
	clear(f.applied)
	for stream, p := range f.positions {
		p.advance(f.at[stream].seq)
	}
	release(batch)
	for i := range batch {
		if batch[i].caughtUp {
			f.caughtUp()
		}
	}
	return nil
}

// release takes a batch off the backlogs of its readers.
func release(batch []item) {
	r, events, bytes := batch[0].reader, 0, 0
	for i := range batch {
		if batch[i].reader != r {
			r.folded(events, bytes)
			r, events, bytes = batch[i].reader, 0, 0
		}
		events++
		bytes += batch[i].size
	}
	r.folded(events, bytes)
}

// apply applies a batch and moves the cursors in the file, in one transaction, so that
// an event is never applied twice or left out. It skips events at or before their
// cursor. It moves at too, and returns the events that it has applied, in the memory
// of applied.
func apply(s *store, p Projection, batch []item, at cursors, applied []Event) ([]Event, error) {
	applied = applied[:0]
	moved := make(cursors, len(at))
	place := func(stream string) cursor {
		if c, ok := moved[stream]; ok {
			return c
		}
		return at[stream]
	}
	for i := range batch {
		if e := &batch[i]; e.Seq > place(e.Stream).seq {
			applied = append(applied, e.Event)
			moved[e.Stream] = e.at
		}
	}
	if len(applied) == 0 {
		return applied, nil
	}
	tx, err := s.db.Begin(true)
	if err != nil {
		return applied[:0], err
	}
	defer tx.Rollback() // does nothing after a commit
	for _, e := range applied {
		if err := p.Apply(tx, e); err != nil {
			return applied[:0], fmt.Errorf("apply %s %d: %w", e.Stream, e.Seq, err)
		}
	}
	for stream, c := range moved {
		if err := writeCursor(tx, stream, c); err != nil {
			return applied[:0], err
		}
	}
	if err := tx.Commit(); err != nil {
		return applied[:0], unwritten(err)
	}
	for stream, c := range moved {
		at[stream] = c
	}
	return applied, nil
}
