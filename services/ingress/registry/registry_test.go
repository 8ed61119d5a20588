package registry

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/pkg/kv"
	"github.com/trunkline-sms/trunkline/pkg/testkit/bustest"
	"github.com/trunkline-sms/trunkline/services/ingress/access"
	"github.com/trunkline-sms/trunkline/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var account = &streams.Account{ID: streams.AccountIDOf("acme"), Name: "acme"}

var deployment = streams.Deployment{Shards: 1, Replicas: 1, EnqueueMaxBytes: 1 << 30, StatusMaxBytes: 1 << 30}

// newRegistry runs a Registry on a real engine.
func newRegistry(t testing.TB) *Registry { return newRegistryAt(t, time.Now) }

// newRegistryAt gives the registry its clock before it runs: the sweep of markers reads it too.
func newRegistryAt(t testing.TB, now func() time.Time) *Registry {
	t.Helper()
	b := bustest.New(t)
	if err := streams.Ensure(t.Context(), b.JS, deployment, true); err != nil {
		t.Fatal(err)
	}
	r := New(Options{Bus: b, Log: zap.NewNop(), Now: now})
	bustest.Run(t, r.Run)
	return r
}

var stranger = access.Caller{Account: &streams.Account{ID: streams.AccountIDOf("stranger"), Name: "stranger"}}

func TestWebhooks(t *testing.T) {
	c := newRegistry(t)
	owner := access.Caller{Account: account}
	for i := range MaxWebhooks {
		if err := c.PutWebhook(t.Context(), owner, Webhook{ID: fmt.Sprint("w", i), URL: "https://example.org", Event: "sms:sent"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.PutWebhook(t.Context(), owner, Webhook{ID: "one more"}); !fault.Is(err, fault.Conflict) {
		t.Errorf("one more: got %v, want a refusal", err)
	}
	if err := c.PutWebhook(t.Context(), owner, Webhook{ID: "w0", URL: "https://example.com", Event: "sms:sent"}); err != nil {
		t.Errorf("in the place of another: %v", err)
	}
	if err := c.RemoveWebhook(t.Context(), stranger, "w0"); err != nil {
		t.Fatal(err)
	}
	all, err := c.Webhooks(t.Context(), owner)
	if err != nil || len(all) != MaxWebhooks || all[0].ID != "w0" || all[0].URL != "https://example.com" {
		t.Fatalf("got %d webhooks, %v", len(all), err)
	}
	for _, id := range []string{"w0", "w0", "unknown"} {
		if err := c.RemoveWebhook(t.Context(), owner, id); err != nil {
			t.Errorf("remove %s: %v", id, err)
		}
	}
	if all, err = c.Webhooks(t.Context(), owner); err != nil || len(all) != MaxWebhooks-1 {
		t.Errorf("got %d webhooks, %v", len(all), err)
	}
	if all, err = c.Webhooks(t.Context(), stranger); err != nil || len(all) != 0 {
		t.Errorf("got %d webhooks of another account, %v", len(all), err)
	}
}

// Changes of settings at a time follow each other.
func TestSettings(t *testing.T) {
	c := newRegistry(t)
	owner := access.Caller{Account: account}
	if got, err := c.Settings(t.Context(), owner); err != nil || got != nil {
		t.Fatalf("got %s, %v before anybody set any", got, err)
	}
	var done sync.WaitGroup
	for range 4 {
		done.Go(func() {
			_, err := c.ChangeSettings(t.Context(), owner, func(before json.RawMessage) (json.RawMessage, error) {
				n := 0
				if before != nil {
					if err := json.Unmarshal(before, &n); err != nil {
						return nil, err
					}
				}
				return json.Marshal(n + 1)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	got, err := c.Settings(t.Context(), owner)
	if diff := cmp.Diff("4", string(got)); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got, err := c.Settings(t.Context(), stranger); err != nil || got != nil {
		t.Errorf("got %s, %v as another account's", got, err)
	}
}

// Webhooks are listed in the order in which they were made first, and a list that cannot be read is no empty one.
func TestWebhooks_Order(t *testing.T) {
	var later atomic.Int64 // since the test began
	begun := time.Now()
	c, caller := newRegistryAt(t, func() time.Time { return begun.Add(time.Duration(later.Load())) }), access.Caller{Account: account}
	for _, id := range []string{"b", "a", "b"} {
		if err := c.PutWebhook(t.Context(), caller, Webhook{ID: id, URL: "https://example.org"}); err != nil {
			t.Fatal(err)
		}
		later.Add(int64(time.Minute))
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
	if _, err := c.bucket.Update(t.Context(), streams.SettingsKey(account.ID), nil, 0); !fault.Is(err, fault.Unavailable) {
		t.Errorf("settings without the bucket: got %v", err)
	}
}

// An engine that does not answer about webhooks or settings is not waited for.
func TestRegistry_Late(t *testing.T) {
	bustest.Simulate(t, func(t *testing.T) {
		c := newRegistry(t)
		speak := bustest.Mute(t, c.bus)
		defer speak()
		caller := access.Caller{Account: account}
		for what, ask := range map[string]func() error{
			"webhooks": func() error {
				_, err := c.Webhooks(t.Context(), caller)
				return err
			},
			"settings": func() error {
				_, err := c.Settings(t.Context(), caller)
				return err
			},
			"removal": func() error { return c.RemoveWebhook(t.Context(), caller, "w") },
		} {
			begun := time.Now()
			err := ask()
			if f := fault.As(err); f == nil || f.Code != "registry_unavailable" || time.Since(begun) != 2*time.Second {
				t.Errorf("%s: got %v after %s, want a refusal after 2s", what, err, time.Since(begun))
			}
		}
	})
}

// A webhook that was removed leaves nothing behind that look-ups would pass for ever.
func TestRemoveWebhook_Swept(t *testing.T) {
	c, caller := newRegistry(t), access.Caller{Account: account}
	for i := range 20 {
		if err := c.PutWebhook(t.Context(), caller, Webhook{ID: fmt.Sprint(i), URL: "https://example.org"}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			continue // it stays
		}
		if err := c.RemoveWebhook(t.Context(), caller, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		before        time.Time
		removed, left int
	}{{time.Now().Add(-time.Minute), 0, 20}, {time.Now().Add(time.Minute), 19, 1}} {
		n, err := kv.RemoveMarkers(t.Context(), c.bus, streams.RegistryBucket, test.before)
		if err != nil || n != test.removed {
			t.Errorf("removed %d markers, %v, want %d", n, err, test.removed)
		}
		stream, err := c.bus.JS.Stream(t.Context(), "KV_"+streams.RegistryBucket)
		if err != nil {
			t.Fatal(err)
		}
		if got := stream.CachedInfo().State.Msgs; got != uint64(test.left) {
			t.Errorf("%d entries are left, want %d", got, test.left)
		}
	}
	if hooks, err := c.Webhooks(t.Context(), caller); err != nil || len(hooks) != 1 {
		t.Errorf("got %d webhooks, %v", len(hooks), err)
	}
}
