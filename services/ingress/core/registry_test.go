package core

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trunkline-sms/trunkline/pkg/fault"
	"github.com/trunkline-sms/trunkline/streams"
)

var stranger = Caller{Account: &streams.Account{ID: streams.AccountIDOf("stranger"), Name: "stranger"}}

func TestCore_Webhooks(t *testing.T) {
	c := newCore(t)
	owner := Caller{Account: account}
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
func TestCore_Settings(t *testing.T) {
	c := newCore(t)
	owner := Caller{Account: account}
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

func TestCore_Devices(t *testing.T) {
	c := newCore(t)
	owner := Caller{Account: account}
	for _, name := range []string{"Pixel", "Nexus"} {
		if _, err := c.devices.contact(t.Context(), account.ID, name); err != nil {
			t.Fatal(err)
		}
	}
	all, err := c.Devices(t.Context(), owner)
	if err != nil || len(all) != 2 || all[0].Name != "Nexus" || all[0].Created.IsZero() || all[0].LastSeen.IsZero() {
		t.Fatalf("got %+v, %v", all, err)
	}
	if c.Online() != 2 {
		t.Errorf("got %d phones online, want 2", c.Online())
	}
	pixel := streams.DeviceIDOf(account.ID, "Pixel")
	if err := c.RemoveDevice(t.Context(), stranger, pixel); err != nil {
		t.Fatal(err)
	}
	for _, id := range []streams.DeviceID{pixel, pixel, 7} {
		if err := c.RemoveDevice(t.Context(), owner, id); err != nil {
			t.Errorf("remove %s: %v", id, err)
		}
	}
	if all, err = c.Devices(t.Context(), owner); err != nil || len(all) != 1 {
		t.Errorf("got %+v, %v", all, err)
	}
	if _, err := c.devices.contact(t.Context(), account.ID, "Pixel"); err != nil {
		t.Errorf("it comes back: %v", err)
	}
	if all, err = c.Devices(t.Context(), owner); err != nil || len(all) != 2 {
		t.Errorf("got %+v, %v", all, err)
	}
	if all, err = c.Devices(t.Context(), stranger); err != nil || len(all) != 0 {
		t.Errorf("got %+v of another account, %v", all, err)
	}
}
