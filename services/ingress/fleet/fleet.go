// Package fleet knows the phones of each account: which names they have, and when each called last, here or at another
// ingress. It keeps nothing that a restart would lose.
package fleet

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/services/ingress/broadcast"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// Options are what a Fleet is made of.
type Options struct {
	Bus *bus.Bus
	Log *zap.Logger
	Now func() time.Time
}

// Fleet knows the phones of all accounts.
type Fleet struct {
	bus      *bus.Bus
	log      *zap.Logger
	now      func() time.Time
	bucket   kv.Bucket
	devices  *devices
	presence *presence
}

// New makes a Fleet that knows of no calls yet.
func New(o Options) *Fleet {
	present := newPresence(o.Now)
	return &Fleet{
		bus:      o.Bus,
		log:      o.Log,
		now:      o.Now,
		bucket:   kv.Bucket{Bus: o.Bus, Name: streams.DevicesBucket},
		devices:  newDevices(o.Bus, o.Log, o.Now, present),
		presence: present,
	}
}

// Run exchanges with other ingresses which phones called, and sweeps the devices bucket, until ctx is done.
func (f *Fleet) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() {
		broadcast.Run(ctx, f.bus, f.log, func() request.Used { return request.Used{Devices: f.presence.takeNews()} }, f.heard)
	})
	parts.Go(func() { kv.Sweep(ctx, f.bus, streams.DevicesBucket, f.log, f.now) })
	parts.Wait() // the last calls that were not broadcast hardly matter
	return nil
}

func (f *Fleet) heard(told request.Used) {
	for _, one := range told.Devices {
		f.presence.heard(one)
	}
}

// Contact notes that a phone called, and gives its id: zero for a phone without a name. It is a fault Conflict if the name
// is new and the account has streams.MaxDevices already, all of which called within 30 days, and Unavailable if the
// phone is not known here and cannot be looked up.
func (f *Fleet) Contact(ctx context.Context, account streams.AccountID, name string) (streams.DeviceID, error) {
	return f.devices.contact(ctx, account, name)
}

// Devices lists the phones of the caller's account that gave a name, by name.
func (f *Fleet) Devices(ctx context.Context, caller access.Caller) ([]streams.Device, error) {
	all, err := f.list(ctx, caller.Account.ID)
	for i, d := range all {
		if seen := f.presence.lastSeen(d.ID); seen.After(d.LastSeen) {
			all[i].LastSeen = seen.UTC()
		}
	}
	slices.SortFunc(all, func(a, b streams.Device) int { return cmp.Compare(a.Name, b.Name) })
	return all, err
}

func (f *Fleet) list(ctx context.Context, account streams.AccountID) ([]streams.Device, error) {
	return kv.List[streams.Device](ctx, f.bucket, streams.DeviceKeys(account))
}

// RemoveDevice forgets a phone. It is known again when it calls again. It is no fault if the phone is not known.
func (f *Fleet) RemoveDevice(ctx context.Context, caller access.Caller, device streams.DeviceID) error {
	err := f.bucket.Delete(ctx, streams.DeviceKey(caller.Account.ID, device))
	f.devices.forget(device)
	return err
}

// Online is how many phones that give a name called within the last 90 s, at any ingress.
func (f *Fleet) Online() int { return f.presence.count() }

// DeviceOnline says whether the phone whose login the caller came with called within the last 90 s, at any ingress; for
// a login of the account, whether any of its phones that gave a name did.
func (f *Fleet) DeviceOnline(ctx context.Context, caller access.Caller) bool {
	if caller.Device != 0 {
		return f.presence.online(caller.Device)
	}
	account := caller.Account.ID
	if online, known := f.presence.remembered(account); known {
		return online
	}
	all, err := f.list(ctx, account)
	return err == nil && f.presence.look(account, all)
}
