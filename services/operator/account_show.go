package operator

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/table"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// accountView is an account as it is printed: without hashes.
type accountView struct {
	ID           streams.AccountID `json:"id"`
	Name         string            `json:"name"`
	Created      time.Time         `json:"created"`
	Suspended    bool              `json:"suspended"`
	Subscription string            `json:"subscription"`
	Limit        int64             `json:"limit"`
	Rate         int               `json:"rate"`
	Lease        string            `json:"lease"`
	Attempts     int               `json:"attempts"`
	AfterLapse   string            `json:"after_lapse"`
	Validity     string            `json:"validity"`
	Region       string            `json:"region,omitempty"`
	Login        string            `json:"login,omitempty"`
	Tokens       []tokenView       `json:"tokens"`
}

type tokenView struct {
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
}

func viewAccount(a streams.Account) accountView {
	v := accountView{
		ID: a.ID, Name: a.Name, Created: a.Created, Suspended: a.Suspended,
		Subscription: accounts.FormatSubscription(a.Subscription),
		Limit:        a.Plan.Limit, Rate: a.Plan.Rate, Lease: a.Plan.Lease.String(), Attempts: a.Plan.Attempts,
		AfterLapse: cmp.Or(string(a.Plan.AfterLapse), "default"),
		Validity:   cmp.Or(a.Plan.Validity, streams.DefaultValidity).String(), Region: a.Region,
		Login: a.Login, Tokens: []tokenView{},
	}
	for _, t := range a.Tokens {
		v.Tokens = append(v.Tokens, tokenView{Created: t.Created, Expires: t.Expires})
	}
	return v
}

func (v accountView) status() string {
	if v.Suspended {
		return "suspended"
	}
	return v.Subscription
}

type accountList struct {
	server
	asJSON
}

func (accountList) Help() string {
	return "Example:\n\n    trunkline account list"
}

func (c *accountList) Run(ctx context.Context, t *Terminal) error {
	book, _, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	all, err := book.List(ctx)
	if err != nil {
		return err
	}
	views := make([]accountView, len(all))
	for i, a := range all {
		views[i] = viewAccount(a)
	}
	if c.JSON {
		return t.printJSON(views)
	}
	var p table.Table
	p.Row("NAME", "ID", "STATUS", "LIMIT", "RATE", "LEASE", "TOKENS", "CREATED")
	for _, v := range views {
		p.Row(v.Name, v.ID, v.status(), orNone(v.Limit, ""), orNone(int64(v.Rate), ""), v.Lease, len(v.Tokens), formatTime(v.Created))
	}
	return p.Print(t.Out)
}

func orNone(n int64, unit string) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n) + unit
}

type accountShow struct {
	server
	asJSON
	Name string `arg:"" help:"Name of the account."`
}

func (accountShow) Help() string {
	return "Example:\n\n    trunkline account show shop"
}

// accountDetail is all that is known of an account.
type accountDetail struct {
	accountView
	Usage   *request.Usage   `json:"usage"` // nil: quota did not answer
	Devices []streams.Device `json:"devices"`
}

func (c *accountShow) Run(ctx context.Context, t *Terminal) error {
	book, b, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	account, err := book.Find(ctx, c.Name)
	if err != nil {
		return err
	}
	detail := accountDetail{accountView: viewAccount(account)}
	if detail.Devices, err = book.Devices(ctx, account.ID); err != nil {
		return err
	}
	usage, err := call[request.Usage](ctx, b, request.QuotaUsage, request.UsageOf{Account: account.ID})
	if err == nil {
		detail.Usage = &usage
	} else {
		t.warn("this month's usage is not known: %v", err)
	}
	if c.JSON {
		return t.printJSON(detail)
	}
	return detail.print(t.Out)
}

func (d accountDetail) print(out io.Writer) error {
	var p table.Table
	p.Row("name", d.Name)
	p.Row("id", d.ID)
	p.Row("created", formatTime(d.Created))
	p.Row("suspended", d.Suspended)
	p.Row("subscription", d.Subscription)
	p.Row("limit", orNone(d.Limit, " a month"))
	p.Row("rate", orNone(int64(d.Rate), " a minute and token"))
	p.Row("lease", d.Lease)
	p.Row("attempts", d.Attempts)
	p.Row("after lapse", d.AfterLapse)
	p.Row("validity", d.Validity)
	p.Row("region", cmp.Or(d.Region, "none"))
	if d.Login != "" {
		p.Row("login", d.Login)
	}
	if d.Usage != nil {
		p.Row("used in "+d.Usage.Month, d.Usage.Used)
	}
	p.Line("")
	p.Row("TOKEN CREATED", "EXPIRES")
	for _, t := range d.Tokens {
		p.Row(formatTime(t.Created), orNever(t.Expires))
	}
	if len(d.Devices) > 0 {
		p.Line("")
		p.Row("DEVICE", "LAST SEEN")
	}
	for _, device := range d.Devices {
		p.Row(device.Name, orNever(device.LastSeen))
	}
	return p.Print(out)
}
