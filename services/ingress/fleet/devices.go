package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/bounded"
	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/keylock"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/streams"
)

const (
	// Limit: the last-seen time of a device is written every 5 min, so a stored one may be that much too old.
	// Used up by: every phone that calls. Hurts: nobody.
	seenEvery = 5 * time.Minute
	// unseenFor is longer than anything can be leased to the device, held by it, or wait for it alone:
	// streams.MaxSchedule and streams.MaxValidity.
	//
	// Limit: in an account that has 1,000 devices, a name is kept for 30 days after the last call of its device.
	// Beyond it: a new name of the account takes its place; it is a new name when it calls again.
	// Used up by: a phone that does not call. Hurts: only that phone. Test: TestDevices_GiveTheirPlacesUp.
	unseenFor = 30 * 24 * time.Hour
	// Limit: an ingress has 65,536 devices in memory. Beyond it: another one is dropped, and read again when it calls.
	// Used up by: 66 accounts with all their phones. Hurts: nobody: other phones cost a read now and then.
	// Test: TestDevices_Bounded.
	maxKnown = 1 << 16
	// Limit: looking up devices takes 2 s. Beyond it: 503 `devices_unavailable`.
	// Used up by: an engine that is slow. Hurts: phones that are not in memory. Test: TestDevices_Late.
	bucketWithin = 2 * time.Second
	// retrySoon is when to come again after something that passes by itself.
	retrySoon = time.Second
)

// devices writes the devices bucket: the names of an account's phones, and when each was last seen. A phone that called
// lately costs only a look into memory.
type devices struct {
	bus      *bus.Bus
	log      *zap.Logger
	now      func() time.Time
	presence *presence

	mu    sync.Mutex
	known map[streams.DeviceID]known

	// New names of an account are added one after another: two must not both become the last that there is room for.
	locks keylock.Locks[streams.AccountID]
}

type known struct {
	revision uint64
	seen     time.Time // as written
	created  time.Time
}

func newDevices(b *bus.Bus, log *zap.Logger, now func() time.Time, p *presence) *devices {
	return &devices{bus: b, log: log, now: now, presence: p, known: map[streams.DeviceID]known{}}
}

var (
	errDevices     = fault.New(fault.Conflict, "too_many_devices", "The account has too many device names")
	errDevicesLate = &fault.Error{Kind: fault.Unavailable, Code: "devices_unavailable", Text: "The devices cannot be looked up now, try again", RetryAfter: retrySoon}
)

// contact notes that a phone called, and gives its id: zero for a phone without a name. It is a fault if the name is
// new and the account has streams.MaxDevices already, all of which called within unseenFor.
func (d *devices) contact(ctx context.Context, account streams.AccountID, name string) (streams.DeviceID, error) {
	if name == "" {
		return 0, nil
	}
	id := streams.DeviceIDOf(account, name)
	err := d.note(ctx, account, id, name)
	if err == nil { // a phone that is rejected is none of the account
		d.presence.called(id)
	}
	return id, err
}

// note brings the bucket up to date with a contact.
func (d *devices) note(ctx context.Context, account streams.AccountID, id streams.DeviceID, name string) error {
	now := d.now()
	if d.isFresh(id, now) {
		return nil
	}
	err := d.writeLocked(ctx, account, streams.Device{ID: id, Name: name, Created: now.UTC(), LastSeen: now.UTC()})
	switch {
	case err == nil, errors.Is(err, errDevices):
		return err
	case d.isKnown(id):
		// The time when a phone was last seen is no reason to reject it: the next contact writes it.
		d.log.Warn("last-seen time not written", zap.Stringer("device", id), zap.Error(err))
		return nil
	}
	return errDevicesLate.With(err)
}

// writeLocked writes a contact, after earlier ones of the same account are written.
func (d *devices) writeLocked(ctx context.Context, account streams.AccountID, device streams.Device) error {
	ctx, cancel := context.WithTimeout(ctx, bucketWithin)
	defer cancel()
	unlock, err := d.locks.Lock(ctx, account)
	if err != nil {
		return err
	}
	defer unlock()
	if d.isFresh(device.ID, device.LastSeen) {
		return nil
	}
	return d.write(ctx, account, device)
}

func (d *devices) isKnown(id streams.DeviceID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.known[id]
	return ok
}

// isFresh says whether a contact of the device need not be written.
func (d *devices) isFresh(id streams.DeviceID, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.known[id]
	return ok && now.Sub(k.seen) < seenEvery
}

// write brings the bucket up to date with a contact, unless another ingress
// just did.
func (d *devices) write(ctx context.Context, account streams.AccountID, device streams.Device) error {
	bucket, err := d.bus.JS.KeyValue(ctx, streams.DevicesBucket)
	if err != nil {
		return err
	}
	key := streams.DeviceKey(account, device.ID)
	value, err := json.Marshal(device)
	if err != nil {
		return err
	}
	d.mu.Lock()
	k, ok := d.known[device.ID]
	d.mu.Unlock()
	if ok {
		if !k.created.IsZero() {
			device.Created = k.created
		}
		if value, err = json.Marshal(device); err != nil {
			return err
		}
		revision, err := bucket.Update(ctx, key, value, k.revision)
		if err == nil {
			d.remember(device.ID, known{revision, device.LastSeen, device.Created})
			return nil
		}
		if !errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			// The time when a phone was last seen is no reason to reject it.
			d.log.Warn("last-seen time not written", zap.Stringer("device", device.ID), zap.Error(err))
			return nil
		}
	}
	entry, err := bucket.Get(ctx, key)
	switch {
	case err == nil:
		var stored streams.Device
		if json.Unmarshal(entry.Value(), &stored) != nil {
			stored = streams.Device{} // a damaged record is written again, or its phone would be rejected for ever
		}
		d.remember(device.ID, known{entry.Revision(), stored.LastSeen, stored.Created})
		if ok || device.LastSeen.Sub(stored.LastSeen) < seenEvery {
			return nil
		}
		return d.write(ctx, account, device) // now that it is known
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return d.create(ctx, bucket, account, device, key, value)
	default:
		return err
	}
}

func (d *devices) create(ctx context.Context, bucket jetstream.KeyValue, account streams.AccountID, device streams.Device, key string, value []byte) error {
	names, err := bucket.ListKeysFiltered(ctx, streams.DeviceKeys(account))
	if err != nil {
		return err
	}
	count := 0
	for range names.Keys() {
		count++
	}
	if err := ctx.Err(); err != nil { // the list may not be complete
		return err
	}
	if count >= streams.MaxDevices {
		if err := d.retire(ctx, bucket, account); err != nil {
			return err
		}
	}
	revision, err := bucket.Create(ctx, key, value)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return nil // another ingress has written it: the next contact learns the revision
	}
	if err == nil {
		d.remember(device.ID, known{revision, device.LastSeen, device.Created})
	}
	return err
}

// retire removes that device of an account that has not called for longest. It is a fault if all called within
// unseenFor.
func (d *devices) retire(ctx context.Context, bucket jetstream.KeyValue, account streams.AccountID) error {
	watcher, err := bucket.Watch(ctx, streams.DeviceKeys(account), jetstream.IgnoreDeletes())
	if err != nil {
		return err
	}
	var oldest jetstream.KeyValueEntry
	var id streams.DeviceID
	seen := d.now().Add(-unseenFor)
	err = kv.Each(ctx, watcher, func(entry jetstream.KeyValueEntry) bool {
		var device streams.Device
		_ = json.Unmarshal(entry.Value(), &device) // a record that cannot be read was never seen
		called := clock.Later(clock.Later(device.Created, device.LastSeen), d.presence.lastSeen(device.ID))
		if called.Before(seen) {
			oldest, id, seen = entry, device.ID, called
		}
		return true
	})
	if err != nil {
		return err
	}
	if oldest == nil {
		return errDevices
	}
	// If it calls just now, its revision has changed and it stays.
	err = bucket.Delete(ctx, oldest.Key(), jetstream.LastRevision(oldest.Revision()))
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return errDevices
	}
	if err == nil {
		d.forget(id)
		d.log.Info("a phone that has not called for long makes room for a new name", zap.Stringer("account", account), zap.Stringer("device", id))
	}
	return err
}

// forget makes the next contact read the bucket.
func (d *devices) forget(id streams.DeviceID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, id)
}

func (d *devices) remember(id streams.DeviceID, k known) {
	d.mu.Lock()
	defer d.mu.Unlock()
	bounded.Put(d.known, maxKnown, id, k)
}
