package operator

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Projection are the commands about projections. The service that owns one
// does the work.
type Projection struct {
	Verify  projectionVerify  `cmd:"" help:"Compare a projection with one rebuilt from the streams."`
	Rebuild projectionRebuild `cmd:"" help:"Rebuild a projection from the streams and swap it in."`
	Dump    projectionDump    `cmd:"" help:"Print a projection's content as lines of text."`
}

// foldTimeout bounds work that reads the streams from their beginning.
const foldTimeout = time.Hour

// ask asks the service that owns a projection.
func ask[A, Q any](ctx context.Context, s server, subject, name string, q Q) (A, error) {
	var none A
	b, closeConn, err := s.dial()
	if err != nil {
		return none, err
	}
	defer closeConn()
	ctx, cancel := context.WithTimeout(ctx, foldTimeout)
	defer cancel()
	answer, err := bus.Call[A](ctx, b, subject, q)
	if err != nil {
		return none, fmt.Errorf("projection %q (there are quota, version and dispatcher-0, dispatcher-1, …): %w", name, plain(err))
	}
	return answer, nil
}

type projectionVerify struct {
	server
	asJSON
	Name string `arg:"" help:"Name of the projection: quota, version, or dispatcher-0 for the dispatcher of shard 0."`
}

func (projectionVerify) Help() string {
	return "Exits 1 when they differ.\n\nExample:\n\n    trunkline projection verify dispatcher-0"
}

func (c *projectionVerify) Run(ctx context.Context, t *Terminal) error {
	verified, err := ask[request.Verified](ctx, c.server, request.ProjectionVerify(c.Name), c.Name, request.Verify{})
	if err != nil {
		return err
	}
	if c.JSON {
		if err := t.printJSON(verified); err != nil {
			return err
		}
	}
	if verified.Difference != "" {
		return fmt.Errorf("projection %s differs from its streams: %s: run `trunkline projection rebuild %s`", c.Name, verified.Difference, c.Name)
	}
	if c.JSON {
		return nil
	}
	return t.printLine("projection %s equals its streams", c.Name)
}

type projectionRebuild struct {
	server
	Name string `arg:"" help:"Name of the projection: quota, version, or dispatcher-0 for the dispatcher of shard 0."`
}

func (projectionRebuild) Help() string {
	return "The old one serves until the new one is complete.\n\nExample:\n\n    trunkline projection rebuild quota"
}

func (c *projectionRebuild) Run(ctx context.Context, t *Terminal) error {
	if _, err := ask[request.Rebuilt](ctx, c.server, request.ProjectionRebuild(c.Name), c.Name, request.Rebuild{}); err != nil {
		return err
	}
	return t.printLine("projection %s is rebuilt", c.Name)
}

type projectionDump struct {
	server
	Name string `arg:"" help:"Name of the projection: quota, version, or dispatcher-0 for the dispatcher of shard 0."`
}

func (projectionDump) Help() string {
	return "Example:\n\n    trunkline projection dump quota"
}

func (c *projectionDump) Run(ctx context.Context, t *Terminal) error {
	// A dump may be larger than any answer, so it comes by way of a file.
	dir, err := os.MkdirTemp("", "trunkline-dump-")
	if err != nil {
		return fmt.Errorf("make a place for the dump: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "dump")
	if _, err := ask[request.Dumped](ctx, c.server, request.ProjectionDump(c.Name), c.Name, request.Dump{File: file}); err != nil {
		return err
	}
	dump, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read dump: %w", err)
	}
	defer func() { _ = dump.Close() }()
	if _, err := io.Copy(t.Out, dump); err != nil {
		return fmt.Errorf("print dump: %w", err)
	}
	return nil
}
