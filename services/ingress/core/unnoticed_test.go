package core

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/trunkline-sms/trunkline/pkg/bus"
	"github.com/trunkline-sms/trunkline/pkg/clock"
	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
	"github.com/trunkline-sms/trunkline/streams/request"
)

// A session that is ended at one ingress has ended at the others, at those that start later too.
func TestCore_EndSession_Elsewhere(t *testing.T) {
	c := newCore(t)
	putAccount(t, c, shopLogin(t))
	running := newCoreOn(t, c.bus, 1)
	login := admitted(t, c, "shop", "correct horse")
	tokens, err := c.BeginSession(t.Context(), login, time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.BeginSession(t.Context(), login, time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EndSession(t.Context(), login, tokens.ID); err != nil {
		t.Fatal(err)
	}
	later := newCoreOn(t, c.bus, 2)
	if _, _, err := later.AdmitSession(t.Context(), tokens.Access, Posting); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("at an ingress that started later: got %v, want a refusal", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for { // until it has heard of it
		_, _, err := running.AdmitSession(ctx, tokens.Access, Posting)
		if fault.Is(err, fault.Unauthenticated) {
			break
		}
		if err != nil || ctx.Err() != nil {
			t.Fatalf("at an ingress that was running: got %v, want a refusal", err)
		}
	}
	for _, at := range []*Core{c, running, later} {
		if _, _, err := at.AdmitSession(t.Context(), other.Access, Posting); err != nil {
			t.Errorf("another session of the login: %v", err)
		}
		renewing := Session{Caller: login}
		if _, err := at.RenewSession(t.Context(), renewing, tokens.Renew); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("renewed after its end: got %v, want a refusal", err)
		}
	}
}

// A request that stores nothing gives its grant back, whoever has its key.
func TestCore_Enqueue_GrantOfAnothersKey(t *testing.T) {
	for name, hash := range map[string]string{"the same request": "hash", "another request": "another"} {
		t.Run(name, func(t *testing.T) {
			c, q, cmd := withQuota(t)
			other := newCoreOn(t, c.bus, 1)
			engine := c.enqueue[0]
			c.enqueue[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
				if _, err := other.Enqueue(ctx, keyed(2, "k", hash)); err != nil {
					t.Error(err)
				}
				return engine.Commit(ctx, msgs)
			})
			cmd.Key = keyed(2, "k", "hash").Key
			got, err := c.Enqueue(t.Context(), cmd)
			if hash == "hash" && (err != nil || !got.Replayed) || hash != "hash" && !fault.Is(err, fault.Mismatch) {
				t.Errorf("got %+v, %v", got, err)
			}
			mustHaveReleased(t, c, q, "g1")
			if got := stored(t, c, allMessages); got != 2 {
				t.Errorf("got %d messages, want those of the other ingress", got)
			}
		})
	}
}

// A repeat that came before the first was stored may find no room for two: it gets the first one's answer, and no
// grant stays open.
func TestCore_Enqueue_NoGrantForARepeat(t *testing.T) {
	c, q, cmd := withQuota(t)
	cmd.Key = keyed(2, "k", "hash").Key
	if _, err := c.Enqueue(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	again, err := c.Enqueue(t.Context(), cmd)
	if err != nil || !again.Replayed {
		t.Errorf("got %+v, %v, want the first one's answer", again, err)
	}
	mustHaveReleased(t, c, q)
	// Nor does one stay where the messages cannot be made.
	cmd.Key = &Key{ID: "l", Hash: "hash", Render: func([]streams.MessageID) ([]byte, error) { return nil, errNotWaiting }}
	if _, err := c.Enqueue(t.Context(), cmd); err == nil {
		t.Error("got no error where there is no answer")
	}
	mustHaveReleased(t, c, q, "g2")
}

func mustHaveReleased(t *testing.T, c *Core, q *quota, want ...string) {
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.released) != len(want) || len(want) == 1 && q.released[0] != want[0] {
		t.Errorf("released: got %v, want %v", q.released, want)
	}
	if open, _ := c.OpenGrants(t.Context(), request.OpenGrants{Leader: 5}); len(open.Grants) != 0 || !c.Idle() {
		t.Errorf("still open: %v", open.Grants)
	}
}

// A request has 1 to 1,000 messages, whatever its dialect makes of it.
func TestCore_Enqueue_Bounds(t *testing.T) {
	c := newCore(t)
	for _, n := range []int{0, MaxDrafts + 1} {
		if _, err := c.Enqueue(t.Context(), drafts(n)); err == nil {
			t.Errorf("%d messages were accepted", n)
		}
	}
	if got := stored(t, c, allMessages); got != 0 {
		t.Errorf("got %d messages stored", got)
	}
}

// An answer that gets lost leaves no grant open where the marker shows that the messages are stored.
func TestCore_Enqueue_GrantAfterALostAnswer(t *testing.T) {
	c, q, cmd := withQuota(t)
	cmd.Key = keyed(2, "k", "hash").Key
	engine := c.enqueue[0]
	c.enqueue[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
		if _, err := engine.Commit(ctx, msgs); err != nil {
			t.Error(err)
		}
		return bus.Stored{}, bus.ErrUnknownOutcome
	})
	if got, err := c.Enqueue(t.Context(), cmd); err != nil || got.Replayed {
		t.Errorf("got %+v, %v", got, err)
	}
	mustHaveReleased(t, c, q)
}

// Where a fence cannot be moved, messages may still be under way: no grant may be told to be the last.
func TestCore_OpenGrants_NoFence(t *testing.T) {
	c := newCore(t)
	c.fences = []*bus.Fence{bus.NewFence(c.bus, streams.EnqueueStream(0))} // which stands nowhere
	if got, err := c.OpenGrants(t.Context(), request.OpenGrants{Leader: 1}); err == nil {
		t.Errorf("got %+v, want an error", got)
	}
}

// A phone that calls again soon costs no question to the engine.
func TestDevices_ContactAgain(t *testing.T) {
	c := newCore(t)
	contact := func() {
		t.Helper()
		if _, err := c.devices.contact(t.Context(), account.ID, "pixel"); err != nil {
			t.Fatal(err)
		}
	}
	contact()
	asked := uint64(1)
	for try := 0; try < 5 && asked > 0; try++ { // once a second it tells other ingresses who called
		before := c.bus.Conn.Stats().OutMsgs
		contact()
		asked = c.bus.Conn.Stats().OutMsgs - before
	}
	if asked > 0 {
		t.Errorf("asked %d times, want never", asked)
	}
}

// A phone that called since its record was written is shown as seen then.
func TestCore_Devices_SeenSince(t *testing.T) {
	c := newCore(t)
	now := time.Now()
	c.devices.now, c.presence.now = func() time.Time { return now }, func() time.Time { return now }
	for range 2 {
		if _, err := c.devices.contact(t.Context(), account.ID, "pixel"); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
	}
	all, err := c.Devices(t.Context(), Caller{Account: account})
	if want := now.Add(-time.Second); err != nil || len(all) != 1 || !all[0].LastSeen.Equal(want) {
		t.Errorf("got %+v, %v, want one that was seen at %v", all, err, want)
	}
}

// Webhooks are listed in the order in which they were made first, and a list that cannot be read is no empty one.
func TestCore_Webhooks_Order(t *testing.T) {
	c, caller := newCore(t), Caller{Account: account}
	now := time.Now()
	c.now = func() time.Time { return now }
	for _, id := range []string{"b", "a", "b"} {
		if err := c.PutWebhook(t.Context(), caller, Webhook{ID: id, URL: "https://example.org"}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
	}
	all, err := c.Webhooks(t.Context(), caller)
	if err != nil || len(all) != 2 || all[0].ID != "b" || all[1].ID != "a" {
		t.Errorf("got %+v, %v, want b before a", all, err)
	}
	if err := c.bus.JS.DeleteKeyValue(t.Context(), streams.RegistryBucket); err != nil {
		t.Fatal(err)
	}
	if err := c.PutWebhook(t.Context(), caller, Webhook{ID: "c"}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without the bucket: got %v", err)
	}
	if _, err := c.storeSettings(t.Context(), caller, nil, 0); !fault.Is(err, fault.Unavailable) {
		t.Errorf("settings without the bucket: got %v", err)
	}
}

// What another ingress tells of a rate counts only if it makes sense.
func TestRates_Took(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	token := streams.HashToken("one")
	for name, one := range map[string]request.Use{
		"no rate": {Token: token, Kind: Posting, Count: 1}, "nothing used": {Token: token, Kind: Posting, Rate: 60},
		"no use": {Token: token, Kind: Posting - 1, Rate: 60, Count: 1}, "no such use": {Token: token, Kind: Reporting + 1, Rate: 60, Count: 1},
	} {
		r := newRates()
		if r.took(one, now); len(r.buckets) != 0 {
			t.Errorf("%s: counted", name)
		}
	}
}

// The text of an error that cannot be read is not told of one that can.
func TestAccounts_Log(t *testing.T) {
	c := newCore(t)
	log, told := observer.New(zap.ErrorLevel)
	c.accounts.log = zap.New(log)
	putAccount(t, c, shopLogin(t))
	if told.Len() != 0 {
		t.Errorf("an account that can be read: got %v", told.All())
	}
	put(t, c, streams.AccountKey(streams.AccountIDOf("other")), shopLogin(t))
	if told.Len() != 1 {
		t.Errorf("one that is another's: got %v", told.All())
	}
}

// The login of a session's tokens has them by one account: an access token does not renew, nor one of another account.
func TestCore_RenewSession_Anothers(t *testing.T) {
	c := newCore(t)
	shop := shopLogin(t)
	putAccount(t, c, shop)
	other := streams.Account{ID: streams.AccountIDOf("other"), Name: "other", Login: "other", Password: hashed(t, "battery staple")}
	putAccount(t, c, other)
	tokens, err := c.BeginSession(t.Context(), admitted(t, c, "shop", "correct horse"), time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RenewSession(t.Context(), Session{Caller: admitted(t, c, "other", "battery staple")}, tokens.Renew); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("by another account: got %v", err)
	}
	if _, err := c.RenewSession(t.Context(), Session{Caller: admitted(t, c, "shop", "correct horse")}, tokens.Access); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("with an access token: got %v", err)
	}
}

// Each deployment signs with a key of its own, which cannot be guessed, and a renew token lasts as long as a session may.
func TestCore_Sessions_KeyAndEnd(t *testing.T) {
	a, b := newCore(t), newCore(t)
	one, err := a.signingKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	another, err := b.signingKey(t.Context())
	if err != nil || bytes.Equal(one, another) || len(one) != keyBytes {
		t.Errorf("got keys of %d and %d bytes that are equal: %t, %v", len(one), len(another), bytes.Equal(one, another), err)
	}
	putAccount(t, a, shopLogin(t))
	now := time.Now()
	a.now = func() time.Time { return now }
	tokens, err := a.BeginSession(t.Context(), admitted(t, a, "shop", "correct horse"), time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(streams.SessionTTL - time.Minute)
	session, rate, err := a.AdmitSession(t.Context(), tokens.Renew, Posting)
	if err != nil || len(session.Scopes) != 1 || session.Scopes[0] != renewScope {
		t.Errorf("a minute before its end: got %+v, %v", session, err)
	}
	if rate.Limit != session.Account.Plan.Rate {
		t.Errorf("got rate %+v, want the plan's %d", rate, session.Account.Plan.Rate)
	}
	if _, _, err := a.AdmitSession(t.Context(), tokens.Access, Posting); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("an access token of an hour: got %v", err)
	}
}

// Only what ends a session ends it: one that was renewed goes on until its tokens run out.
func TestSessions_RenewedIsNotEnded(t *testing.T) {
	c := newCore(t)
	putAccount(t, c, shopLogin(t))
	login := admitted(t, c, "shop", "correct horse")
	tokens, err := c.BeginSession(t.Context(), login, time.Hour, []string{"messages:send"})
	if err != nil {
		t.Fatal(err)
	}
	session, _, err := c.AdmitSession(t.Context(), tokens.Renew, Posting)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RenewSession(t.Context(), session, tokens.Renew); err != nil {
		t.Fatal(err)
	}
	later := newCoreOn(t, c.bus, 1) // which has read all marks
	if n := len(later.sessions.ended); n != 0 {
		t.Errorf("got %d sessions that have ended, want none", n)
	}
	if _, _, err := later.AdmitSession(t.Context(), tokens.Access, Posting); err != nil {
		t.Errorf("the access token of a session that was renewed: got %v", err)
	}
}

// A phone that called at one ingress is online at the others.
func TestCore_share_Presence(t *testing.T) {
	c := newCore(t)
	other := newCoreOn(t, c.bus, 1)
	if _, err := c.devices.contact(t.Context(), account.ID, "pixel"); err != nil {
		t.Fatal(err)
	}
	id := streams.DeviceIDOf(account.ID, "pixel")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for other.presence.lastSeen(id).IsZero() {
		if clock.Sleep(ctx, 10*time.Millisecond) != nil {
			t.Fatal("not heard of")
		}
	}
}

// A report whose id somebody has already is stored under another.
func TestCore_Report_IDTaken(t *testing.T) {
	c := newCore(t)
	engine, tries := c.status[0], 0
	c.status[0] = commit(func(ctx context.Context, msgs []*nats.Msg) (bus.Stored, error) {
		if tries++; tries == 1 {
			return bus.Stored{}, bus.ErrDuplicate
		}
		return engine.Commit(ctx, msgs)
	})
	if _, err := c.Report(t.Context(), reports(streams.Sent)); err != nil || tries != 2 {
		t.Errorf("got %v after %d tries, want it stored at the second", err, tries)
	}
	if n := saidInStream(t, c); n != 1 {
		t.Errorf("%d items are stored, want 1", n)
	}
}

// An answer about other messages than were asked about says nothing.
func TestCore_Report_ShortAnswer(t *testing.T) {
	c := newCore(t)
	short := func(context.Context, request.ChangedBy) (request.Changed, error) {
		return request.Changed{Messages: []request.Change{{}}}, nil
	}
	serve(t, c.bus, request.DispatcherChanged(0), short)
	serve(t, c.bus, request.DispatcherPreview(0), func(ctx context.Context, _ request.Preview) (request.Changed, error) {
		return short(ctx, request.ChangedBy{})
	})
	for range 2 {
		if got, err := c.Report(t.Context(), reports(streams.Sent, streams.Sent)); err != nil || got.Updated != 2 {
			t.Errorf("got %+v, %v, want both taken for stored", got, err)
		}
	}
}
