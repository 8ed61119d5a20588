package operator

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/table"
	"github.com/trunkline-sms/trunkline/streams"
)

// Device are the commands about phones.
type Device struct {
	Create deviceCreate `cmd:"" help:"Give a phone a login of its own, to send through that phone."`
	List   deviceList   `cmd:"" help:"List an account's phones."`
	Delete deviceDelete `cmd:"" help:"Take a phone's login from it and forget it."`
}

type deviceCreate struct {
	server
	Name     string `arg:"" help:"Login, and the name that the phone calls itself: 1 to 64 printable characters; phones of the queue dialect have at most 15."`
	Account  string `default:"default" placeholder:"NAME" help:"Name of the account (default \"default\")."`
	Password string `required:"" help:"Password of the login, - to read it from standard input."`
}

func (deviceCreate) Help() string {
	return "Example:\n\n    trunkline device create pixel --account shop --password -"
}

func (c *deviceCreate) Run(ctx context.Context, t *Terminal) error {
	password, err := readPassword(t.In, c.Password)
	if err != nil {
		return err
	}
	book, _, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	revision, err := book.AddDevice(ctx, c.Account, c.Name, password)
	if err != nil {
		return err
	}
	return changed(ctx, t, book, revision)
}

type deviceList struct {
	server
	asJSON
	Account string `default:"default" placeholder:"NAME" help:"Name of the account (default \"default\")."`
}

func (deviceList) Help() string {
	return "Example:\n\n    trunkline device list --account shop"
}

// deviceView is a phone as it is printed.
type deviceView struct {
	ID       streams.DeviceID `json:"id"`
	Name     string           `json:"name"`
	Login    bool             `json:"login"` // it has one of its own
	Created  time.Time        `json:"created,omitzero"`
	LastSeen time.Time        `json:"last_seen,omitzero"`
}

func (c *deviceList) Run(ctx context.Context, t *Terminal) error {
	book, _, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	account, err := book.Find(ctx, c.Account)
	if err != nil {
		return err
	}
	known, err := book.Devices(ctx, account.ID)
	if err != nil {
		return err
	}
	views := viewDevices(known, account.Devices)
	if c.JSON {
		return t.printJSON(views)
	}
	var p table.Table
	p.Row("NAME", "ID", "LOGIN", "CREATED", "LAST SEEN")
	for _, v := range views {
		login := "no"
		if v.Login {
			login = "yes"
		}
		p.Row(v.Name, v.ID, login, orNever(v.Created), orNever(v.LastSeen))
	}
	return p.Print(t.Out)
}

// viewDevices joins the phones that are known with those that have a login, which may have been forgotten since.
func viewDevices(known []streams.Device, logins []streams.Login) []deviceView {
	views := []deviceView{}
	for _, d := range known {
		views = append(views, deviceView{ID: d.ID, Name: d.Name, Created: d.Created, LastSeen: d.LastSeen})
	}
	for _, l := range logins {
		i := slices.IndexFunc(views, func(v deviceView) bool { return v.ID == l.Device })
		if i < 0 {
			i = len(views)
			views = append(views, deviceView{ID: l.Device, Name: l.Name})
		}
		views[i].Login = true
	}
	slices.SortFunc(views, func(x, y deviceView) int { return cmp.Compare(x.Name, y.Name) })
	return views
}

func orNever(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return formatTime(t)
}

type deviceDelete struct {
	server
	Name    string `arg:"" help:"Name of the phone."`
	Account string `default:"default" placeholder:"NAME" help:"Name of the account (default \"default\")."`
}

func (deviceDelete) Help() string {
	return `What waits for this phone alone goes on waiting until it is no longer valid: cancel it, or give the phone a login again.

Example:

    trunkline device delete pixel --account shop`
}

func (c *deviceDelete) Run(ctx context.Context, t *Terminal) error {
	book, _, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	revision, err := book.RemoveDevice(ctx, c.Account, c.Name)
	if err != nil {
		return err
	}
	return changed(ctx, t, book, revision)
}
