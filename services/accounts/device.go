package accounts

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/streams"
)

func hasDevice(account streams.Account, name string) bool {
	return slices.ContainsFunc(account.Devices, func(l streams.Login) bool { return l.Name == name })
}

// AddDevice gives a phone a login of its own, by which senders have messages sent by that phone: the name that it calls
// itself. The error is ErrTaken where another login has that name. It gives the bucket's revision.
func (a *Accounts) AddDevice(ctx context.Context, account, name string, password secret.String) (uint64, error) {
	if name == "" || !validLogin(name) {
		return 0, fmt.Errorf("device name: want 1 to %d printable characters, without a colon", maxLogin)
	}
	hash, err := hashLogin(name, password)
	if err != nil {
		return 0, err
	}
	owner, err := a.Find(ctx, account)
	if err != nil {
		return 0, err
	}
	device := streams.Device{ID: streams.DeviceIDOf(owner.ID, name), Name: name, Created: a.now().UTC()}
	known, err := a.Devices(ctx, owner.ID)
	if err != nil {
		return 0, err
	}
	isKnown := slices.ContainsFunc(known, func(d streams.Device) bool { return d.ID == device.ID })
	if !isKnown && len(known) >= streams.MaxDevices {
		return 0, tooManyDevices(account)
	}
	if err := a.takeLogin(ctx, name, owner.ID); err != nil {
		return 0, err
	}
	revision, err := a.change(ctx, account, func(account *streams.Account) error {
		switch {
		case account.Login == name:
			return fmt.Errorf("device name %q %w: the account goes by it", name, ErrTaken)
		case hasDevice(*account, name):
			return fmt.Errorf("device name %q %w: delete that one first", name, ErrTaken)
		// Limit: an account has at most 1,000 phones with a login. Beyond it: the command fails.
		// Used up by: the operator. Hurts: nobody else. Test: TestAddDevice_TooMany.
		case len(account.Devices) >= streams.MaxDevices:
			return tooManyDevices(account.Name)
		}
		account.Devices = append(account.Devices, streams.Login{Device: device.ID, Name: name, Password: hash})
		slices.SortFunc(account.Devices, func(x, y streams.Login) int { return cmp.Compare(x.Name, y.Name) })
		return nil
	})
	if err != nil {
		_ = a.dropLogin(ctx, name, owner.ID) // the first error says more
		return 0, err
	}
	if isKnown {
		return revision, nil
	}
	return revision, a.createDevice(ctx, owner.ID, device)
}

func tooManyDevices(account string) error {
	return fmt.Errorf("account %q has %d phones already: delete one, see `trunkline device list --account %s`", account, streams.MaxDevices, account)
}

// createDevice notes a phone that has not called yet.
func (a *Accounts) createDevice(ctx context.Context, account streams.AccountID, device streams.Device) error {
	value, err := json.Marshal(device)
	if err != nil {
		return fmt.Errorf("encode device: %w", err)
	}
	kv, err := a.bus.JS.KeyValue(ctx, streams.DevicesBucket)
	if err == nil {
		_, err = kv.Create(ctx, streams.DeviceKey(account, device.ID), value)
	}
	if err != nil && !errors.Is(err, jetstream.ErrKeyExists) { // it has called meanwhile
		return fmt.Errorf("store device %q: %w", device.Name, err)
	}
	return nil
}

// RemoveDevice takes a phone's login from it, if it has one, and forgets the phone, which is known again when it calls
// again. The error is ErrUnknown where the account has no such phone. It gives the bucket's revision, 0 where there was
// no login.
func (a *Accounts) RemoveDevice(ctx context.Context, account, name string) (uint64, error) {
	owner, err := a.Find(ctx, account)
	if err != nil {
		return 0, err
	}
	var revision uint64
	if hasDevice(owner, name) {
		revision, err = a.change(ctx, account, func(account *streams.Account) error {
			account.Devices = slices.DeleteFunc(account.Devices, func(l streams.Login) bool { return l.Name == name })
			return nil
		})
		if err == nil {
			err = a.dropLogin(ctx, name, owner.ID)
		}
		if err != nil {
			return 0, err
		}
	}
	kv, err := a.bus.JS.KeyValue(ctx, streams.DevicesBucket)
	if err != nil {
		return 0, fmt.Errorf("open devices: %w", err)
	}
	key := streams.DeviceKey(owner.ID, streams.DeviceIDOf(owner.ID, name))
	_, err = kv.Get(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound) && revision == 0:
		return 0, fmt.Errorf("device %q %w: see `trunkline device list --account %s`", name, ErrUnknown, account)
	case errors.Is(err, jetstream.ErrKeyNotFound):
		return revision, nil
	case err == nil:
		err = kv.Delete(ctx, key)
	}
	if err != nil {
		return 0, fmt.Errorf("forget device %q: %w", name, err)
	}
	return revision, nil
}
