package projection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Endpoints answer requests to verify, rebuild and dump the projection under a name,
// such as "quota" or "dispatcher-0".
func (f *File) Endpoints(name string) []bus.Endpoint {
	verify := func(ctx context.Context, _ request.Verify) (request.Verified, error) {
		difference, err := f.Verify(ctx)
		return request.Verified{Difference: difference}, err
	}
	rebuild := func(ctx context.Context, _ request.Rebuild) (request.Rebuilt, error) {
		return request.Rebuilt{}, f.Rebuild(ctx)
	}
	dump := func(ctx context.Context, r request.Dump) (request.Dumped, error) {
		f.fresh(ctx)
		bytes, err := f.dumpTo(r.File)
		return request.Dumped{Bytes: bytes}, err
	}
	return []bus.Endpoint{
		{Subject: request.ProjectionVerify(name), Handler: bus.Handle(verify)},
		{Subject: request.ProjectionRebuild(name), Handler: bus.Handle(rebuild)},
		{Subject: request.ProjectionDump(name), Handler: bus.Handle(dump)},
	}
}

// freshWithin is how long a dump waits until what was stored before it is folded.
const freshWithin = 2 * time.Second

// fresh waits until everything that is stored is folded, but not longer than
// freshWithin.
func (f *File) fresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, freshWithin)
	defer cancel()
	for {
		lag, err := f.Lag(ctx)
		behind := false
		for _, n := range lag {
			behind = behind || n > 0
		}
		if err != nil || !behind {
			return
		}
		if clock.Sleep(ctx, gatherFor) != nil {
			return
		}
	}
}

// dumpTo writes a dump to a new file. It never overwrites one.
func (f *File) dumpTo(path string) (int64, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fault.New(fault.Invalid, "dump_not_writable", "The service cannot make the file for the dump").With(err)
	}
	err = f.Dump(file)
	size, sizeErr := file.Seek(0, io.SeekCurrent)
	err = errors.Join(err, sizeErr, file.Close())
	if err != nil {
		return 0, fmt.Errorf("write dump: %w", errors.Join(err, os.Remove(path)))
	}
	return size, nil
}
