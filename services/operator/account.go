package operator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/secret"
	"github.com/trunkline-sms/trunkline/services/accounts"
	"github.com/trunkline-sms/trunkline/streams"
)

// Account are the commands about accounts.
type Account struct {
	Create  accountCreate  `cmd:"" help:"Make an account and print its token."`
	List    accountList    `cmd:"" help:"List the accounts."`
	Show    accountShow    `cmd:"" help:"Show an account: plan, tokens, usage, phones."`
	Set     accountSet     `cmd:"" help:"Change an account's plan, subscription or login."`
	Token   accountToken   `cmd:"" help:"Give an account a new token; the old ones end."`
	Suspend accountSuspend `cmd:"" help:"Reject all requests of an account."`
	Resume  accountResume  `cmd:"" help:"Accept the requests of a suspended account again."`
}

// seenTimeout is how long a command waits for the ingresses to act on a change.
//
// Limit: an account command waits at most 2 s until every ingress has seen its change. Beyond it: it warns; the
// change is stored.
// Used up by: the operator. Hurts: nobody else. Test: TestAwaitSeenNamesTheSilent.
const seenTimeout = 2 * time.Second

// book opens the accounts of a command's server.
func (s server) book(ctx context.Context) (*accounts.Accounts, *bus.Bus, func(), error) {
	b, closeConn, err := s.dial()
	if err != nil {
		return nil, nil, nil, err
	}
	book, err := accounts.Open(ctx, b, time.Now)
	if err != nil {
		closeConn()
		return nil, nil, nil, err
	}
	return book, b, closeConn, nil
}

// changed waits until every ingress has seen a change, or says on stderr that
// one has not.
func changed(ctx context.Context, t *Terminal, book *accounts.Accounts, revision uint64) error {
	ctx, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	missing, err := book.AwaitSeen(ctx, revision)
	if err != nil {
		return fmt.Errorf("the change is stored, but: %w", err)
	}
	for _, instance := range missing {
		t.warn("the change is stored, but ingress %d has not confirmed it within %v", instance, seenTimeout)
	}
	return nil
}

type accountCreate struct {
	server
	asJSON
	Name     string        `arg:"" help:"Name: 1 to 64 of A-Z a-z 0-9 _ . -"`
	Limit    int64         `default:"0" help:"Messages a month (UTC), 0 for no limit."`
	Rate     int           `default:"60" help:"Requests a minute and token, 0 for no limit."`
	Lease    time.Duration `default:"10m" help:"How long a pulled message stays with its phone."`
	Attempts int           `default:"3" help:"How often a message is handed out before it fails."`
	Login    string        `help:"Login for the dialects that use a password."`
	Password string        `help:"Password of the login, - to read it from standard input."`
	Validity time.Duration `default:"0" help:"How long a message may wait to be sent, up to 168h; 0 for the default, 72h."`
	Region   string        `placeholder:"DE" help:"Country of numbers that name none."`
}

func (accountCreate) Help() string {
	return "Example:\n\n    trunkline account create shop --limit 10000 --rate 600"
}

func (c *accountCreate) Run(ctx context.Context, t *Terminal) error {
	password, err := readPassword(t.In, c.Password)
	if err != nil {
		return err
	}
	book, _, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	created, err := book.Create(ctx, accounts.Spec{
		Name:     c.Name,
		Plan:     streams.Plan{Limit: c.Limit, Rate: c.Rate, Lease: c.Lease, Attempts: c.Attempts, Validity: c.Validity},
		Login:    c.Login,
		Password: password,
		Region:   c.Region,
	})
	if err != nil {
		return err
	}
	if err := t.printToken(c.JSON, created.Account.ID, c.Name, created.Token); err != nil {
		return err
	}
	return changed(ctx, t, book, created.Revision)
}

// printToken prints a token to whoever asked for it: the one place that does.
func (t *Terminal) printToken(asJSON bool, id streams.AccountID, name string, token secret.String) error {
	if asJSON {
		return t.printJSON(struct {
			ID    streams.AccountID `json:"id"`
			Name  string            `json:"name"`
			Token string            `json:"token"`
		}{id, name, token.Reveal()})
	}
	return t.printLine("account %s has the token (it is not shown again):\n%s", name, token.Reveal())
}

// readPassword gives the password of a flag, from standard input for "-".
func readPassword(in io.Reader, flag string) (secret.String, error) {
	if flag != "-" {
		return secret.String(flag), nil
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read password: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errors.New("no password on standard input: type it and press Enter")
	}
	return secret.String(line), nil
}

type accountSet struct {
	server
	Name         string         `arg:"" help:"Name of the account."`
	Limit        *int64         `help:"Messages a month (UTC), 0 for no limit."`
	Rate         *int           `help:"Requests a minute and token, 0 for no limit."`
	Lease        *time.Duration `help:"How long a pulled message stays with its phone."`
	Attempts     *int           `help:"How often a message is handed out before it fails."`
	AfterLapse   *string        `placeholder:"retry|hold|fail|default" help:"What becomes of a message whose lease ran out; default leaves it to the dialect."`
	Subscription *string        `placeholder:"active|none|DATE" help:"Whether the account may enqueue, or until the end of which day (UTC)."`
	Validity     *time.Duration `help:"How long a message may wait to be sent, up to 168h; 0 for the default, 72h."`
	Region       *string        `placeholder:"DE|none" help:"Country of numbers that name none."`
	Login        *string        `help:"New login; needs --password."`
	Password     *string        `help:"New password, - to read it from standard input."`
}

func (accountSet) Help() string {
	return "Example:\n\n    trunkline account set shop --subscription 2026-12-31 --limit 20000"
}

func (c *accountSet) Run(ctx context.Context, t *Terminal) error {
	change, err := c.change(t.In)
	if err != nil {
		return err
	}
	if change == (accounts.Change{}) {
		return errors.New("nothing to change: give a flag, see `trunkline account set --help`")
	}
	book, _, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	revision, err := book.Set(ctx, c.Name, change)
	if err != nil {
		return err
	}
	return changed(ctx, t, book, revision)
}

func (c *accountSet) change(in io.Reader) (accounts.Change, error) {
	change := accounts.Change{Limit: c.Limit, Rate: c.Rate, Lease: c.Lease, Attempts: c.Attempts, Validity: c.Validity, Region: c.Region, Login: c.Login}
	if c.Region != nil && *c.Region == "none" {
		change.Region = new("")
	}
	if c.AfterLapse != nil {
		policy := streams.LapsePolicy(*c.AfterLapse)
		if policy == "default" {
			policy = ""
		}
		change.AfterLapse = &policy
	}
	if c.Subscription != nil {
		subscription, err := accounts.ParseSubscription(*c.Subscription)
		if err != nil {
			return change, err
		}
		change.Subscription = &subscription
	}
	if c.Password != nil {
		password, err := readPassword(in, *c.Password)
		if err != nil {
			return change, err
		}
		change.Password = &password
	}
	return change, nil
}

type accountToken struct {
	server
	asJSON
	Name  string        `arg:"" help:"Name of the account."`
	Grace time.Duration `default:"24h" help:"How long the old tokens still work; 0 ends them at once."`
}

func (accountToken) Help() string {
	return "Example:\n\n    trunkline account token shop --grace 1h"
}

func (c *accountToken) Run(ctx context.Context, t *Terminal) error {
	if c.Grace < 0 {
		return errors.New("grace: want 0 or more, as in 24h")
	}
	book, _, closeConn, err := c.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	token, revision, err := book.Rotate(ctx, c.Name, c.Grace)
	if err != nil {
		return err
	}
	if err := t.printToken(c.JSON, streams.AccountIDOf(c.Name), c.Name, token); err != nil {
		return err
	}
	return changed(ctx, t, book, revision)
}

type accountSuspend struct {
	server
	Name string `arg:"" help:"Name of the account."`
}

func (accountSuspend) Help() string {
	return "Each request of the account gets 403 account_suspended; its messages stay.\n\nExample:\n\n    trunkline account suspend shop"
}

func (c *accountSuspend) Run(ctx context.Context, t *Terminal) error {
	return c.server.suspend(ctx, t, c.Name, true)
}

type accountResume struct {
	server
	Name string `arg:"" help:"Name of the account."`
}

func (accountResume) Help() string {
	return "Example:\n\n    trunkline account resume shop"
}

func (c *accountResume) Run(ctx context.Context, t *Terminal) error {
	return c.server.suspend(ctx, t, c.Name, false)
}

func (s server) suspend(ctx context.Context, t *Terminal, name string, suspended bool) error {
	book, _, closeConn, err := s.book(ctx)
	if err != nil {
		return err
	}
	defer closeConn()
	revision, err := book.Suspend(ctx, name, suspended)
	if err != nil {
		return err
	}
	return changed(ctx, t, book, revision)
}
