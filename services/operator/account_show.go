package operator

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/trunkline-sms/trunkline/services/operator/accounts"
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
		Login:      a.Login, Tokens: []tokenView{},
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
		return printJSON(t.Out, views)
	}
	return table(t.Out, func(w io.Writer) {
		fmt.Fprintln(w, "NAME\tID\tSTATUS\tLIMIT\tRATE\tLEASE\tTOKENS\tCREATED")
		for _, v := range views {
			fmt.Fprintf(w, "%s\t%v\t%s\t%s\t%s\t%s\t%d\t%s\n", v.Name, v.ID, v.status(),
				orNone(v.Limit, ""), orNone(int64(v.Rate), ""), v.Lease, len(v.Tokens), formatTime(v.Created))
		}
	})
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
		fmt.Fprintf(t.Err, "warning: this month's usage is not known: %v\n", err)
	}
	if c.JSON {
		return printJSON(t.Out, detail)
	}
	return detail.print(t.Out)
}

func (d accountDetail) print(out io.Writer) error {
	err := table(out, func(w io.Writer) {
		fmt.Fprintf(w, "name\t%s\nid\t%v\ncreated\t%s\n", d.Name, d.ID, formatTime(d.Created))
		fmt.Fprintf(w, "suspended\t%v\nsubscription\t%s\n", d.Suspended, d.Subscription)
		fmt.Fprintf(w, "limit\t%s\nrate\t%s\n", orNone(d.Limit, " a month"), orNone(int64(d.Rate), " a minute and token"))
		fmt.Fprintf(w, "lease\t%s\nattempts\t%d\nafter lapse\t%s\n", d.Lease, d.Attempts, d.AfterLapse)
		if d.Login != "" {
			fmt.Fprintf(w, "login\t%s\n", d.Login)
		}
		if d.Usage != nil {
			fmt.Fprintf(w, "used in %s\t%d\n", d.Usage.Month, d.Usage.Used)
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	return table(out, func(w io.Writer) {
		fmt.Fprintln(w, "TOKEN CREATED\tEXPIRES")
		for _, t := range d.Tokens {
			expires := "never"
			if !t.Expires.IsZero() {
				expires = formatTime(t.Expires)
			}
			fmt.Fprintf(w, "%s\t%s\n", formatTime(t.Created), expires)
		}
		if len(d.Devices) > 0 {
			fmt.Fprintln(w, "\nDEVICE\tLAST SEEN")
		}
		for _, device := range d.Devices {
			fmt.Fprintf(w, "%s\t%s\n", device.Name, formatTime(device.LastSeen))
		}
	})
}
