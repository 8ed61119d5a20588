package projection_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/projection"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/streams/request"
)

func TestEndpoints(t *testing.T) {
	b := bustest.New(t)
	makeStreams(t, b)
	publishMany(t, b, 3)
	f := start(t, filepath.Join(t.TempDir(), "tally.db"), b, tally{}, projection.Options{})
	f.catchUp(b)
	serving, stop := context.WithCancel(t.Context())
	served := make(chan error)
	up := make(chan struct{})
	go func() {
		served <- b.Serve(serving, bus.ServeOptions{
			Name: "tally", Version: "1.0.0", Endpoints: f.Endpoints("tally"), Ready: func() { close(up) },
		})
	}()
	<-up
	ctx, cancel := patient(t)
	defer cancel()
	if _, err := bus.Call[request.Rebuilt](ctx, b, request.ProjectionRebuild("tally"), request.Rebuild{}); err != nil {
		t.Error(err)
	}
	verified, err := bus.Call[request.Verified](ctx, b, request.ProjectionVerify("tally"), request.Verify{})
	if err != nil || verified.Difference != "" {
		t.Errorf("verified: %q, %v", verified.Difference, err)
	}
	file := filepath.Join(t.TempDir(), "dump")
	dumped, err := bus.Call[request.Dumped](ctx, b, request.ProjectionDump("tally"), request.Dump{File: file})
	must(t, err)
	got, err := os.ReadFile(file)
	must(t, err)
	if want := dump(t, f.File); string(got) != want || dumped.Bytes != int64(len(want)) || strings.Count(want, "\n") != 12 {
		t.Errorf("dumped %d bytes:\n%swant:\n%s", dumped.Bytes, got, want)
	}
	_, err = bus.Call[request.Dumped](ctx, b, request.ProjectionDump("tally"), request.Dump{File: file})
	if !fault.Is(err, fault.Invalid) {
		t.Errorf("dump onto a file: %v", err)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
