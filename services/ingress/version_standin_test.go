package ingress_test

import (
	"context"
	"sync"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// version stands in for the version service: it lists what tests put there.
type version struct {
	bus *bus.Bus

	mu   sync.Mutex
	list []request.AppVersion
}

func newVersion(b *bus.Bus) *version { return &version{bus: b} }

// Name is "version".
func (v *version) Name() string { return "version" }

// Run answers requests.
func (v *version) Run(ctx context.Context) error {
	return v.bus.Serve(ctx, bus.ServeOptions{Name: "version", Version: "0.0.0", Endpoints: []bus.Endpoint{
		{Subject: request.VersionList, Handler: bus.Handle(func(context.Context, request.Versions) (request.VersionsListed, error) {
			v.mu.Lock()
			defer v.mu.Unlock()
			return request.VersionsListed{Versions: v.list}, nil
		})},
	}})
}

// Set is what it lists from now on.
func (v *version) Set(list ...request.AppVersion) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.list = list
}
