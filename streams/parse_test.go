package streams_test

import (
	"strings"
	"testing"
	"time"

	"github.com/trunkline-sms/trunkline/streams"
)

func TestLaneText(t *testing.T) {
	lane := streams.Lane{Target: 5, Priority: streams.Low, Class: streams.Other}
	for want, lane := range map[string]streams.Lane{"0000000000000005.low.other": lane, "any.high.text": {}} {
		text, err := lane.MarshalText()
		if err != nil || string(text) != want {
			t.Errorf("got %q, %v, want %q", text, err, want)
		}
		var back streams.Lane
		if err := back.UnmarshalText(text); err != nil || back != lane {
			t.Errorf("%q is read as %+v, %v", text, back, err)
		}
	}
	for _, bad := range []string{
		"", "any", "any.high", "any.high.text.more", "any.high.data", "any.urgent.text", "some.high.text",
		"0000000000000000.high.text", "000000000000000x.high.text",
	} {
		got := lane
		if err := got.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q gave no error", bad)
		}
	}
}

func TestSubjectsAreReadAsTheyAreWritten(t *testing.T) {
	account := streams.AccountIDOf("shop")
	if got, err := streams.ParseScheduledSubject(streams.ScheduledSubject(3, account)); err != nil || got != account {
		t.Errorf("scheduled: got %v, %v", got, err)
	}
	parses := map[string]func(string) error{
		"enqueue":   func(s string) error { _, _, err := streams.ParseEnqueueSubject(s); return err },
		"scheduled": func(s string) error { _, err := streams.ParseScheduledSubject(s); return err },
		"status":    func(s string) error { _, err := streams.ParseStatusSubject(s); return err },
	}
	own := map[string]string{
		"enqueue":   streams.EnqueueSubject(0, account, streams.Lane{}),
		"scheduled": streams.ScheduledSubject(0, account),
		"status":    streams.DecisionSubject(0, account),
	}
	for kind, parse := range parses {
		whole := own[kind]
		if err := parse(whole); err != nil {
			t.Errorf("%s: %v", whole, err)
		}
		bad := []string{
			"x" + whole, strings.Replace(whole, "sms", "app", 1), strings.Replace(whole, kind, "other", 1),
			strings.Replace(whole, account.String(), "shop", 1), whole + ".more", whole[:strings.LastIndex(whole, ".")],
		}
		for other, subject := range own {
			if other != kind {
				bad = append(bad, subject)
			}
		}
		for _, subject := range bad {
			if parse(subject) == nil {
				t.Errorf("%s: %q gave no error", kind, subject)
			}
		}
	}
}

func TestReleaseSubjects(t *testing.T) {
	for _, subject := range []string{streams.ReleaseSubject(7), streams.DownloadSubject(7)} {
		if got, err := streams.ParseReleaseSubject(subject); err != nil || got != 7 {
			t.Errorf("%s: got %d, %v", subject, got, err)
		}
	}
	for _, bad := range []string{"", "app.release.", "app.release.0", "app.release.-1", "app.release.07", "app.other.7", "app.download.x", "7"} {
		if got, err := streams.ParseReleaseSubject(bad); err == nil {
			t.Errorf("%q is read as %d", bad, got)
		}
	}
	for text, want := range map[string]streams.VersionCode{"1": 1, "10": 10, "210000": 210000} {
		if got, err := streams.ParseVersionCode(text); err != nil || got != want || want.String() != text {
			t.Errorf("version code %s: got %d, %v, which is written %s", text, got, err, want)
		}
	}
	if got := streams.AcceptedSubjects(2); len(got) != 2 || got[0] != "sms.enqueue.2.>" || got[1] != "sms.scheduled.2.*" {
		t.Errorf("accepted messages: got %v", got)
	}
}

func TestIngressClaims(t *testing.T) {
	for _, instance := range []int{0, 1, streams.MaxInstance} {
		if got, err := streams.ParseIngressClaim(streams.IngressClaim(instance)); err != nil || got != instance {
			t.Errorf("claim of %d: got %d, %v", instance, got, err)
		}
	}
	for _, bad := range []string{"", "ingress.", "ingress.-1", "ingress.01", "ingress.1024", "7", "quota", "ingress.x"} {
		if got, err := streams.ParseIngressClaim(bad); err == nil {
			t.Errorf("%q is read as %d", bad, got)
		}
	}
}

// Names of one kind of thing are no other's, and hold what tells it apart.
func TestKeysDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, account := range []streams.AccountID{1, 2} {
		for what, key := range map[string]string{
			"account":       streams.AccountKey(account),
			"device":        streams.DeviceKey(account, 3),
			"settings":      streams.SettingsKey(account),
			"webhook":       streams.WebhookKey(account, "a"),
			"other webhook": streams.WebhookKey(account, "b"),
			"revoked":       streams.RevokedKey(account, "s"),
			"renewed":       streams.RenewedKey(account, "s"),
			"subject":       streams.AccountSubjects(0, account),
			"shard 1":       streams.AccountSubjects(1, account),
			"key":           streams.KeySubject(0, account, "k"),
			"consumer":      streams.ConsumerName(account, streams.Lane{}),
		} {
			if other, ok := seen[key]; ok {
				t.Errorf("%s of account %d has the key of %s: %s", what, account, other, key)
			}
			seen[key] = what
			if key == "" || !strings.Contains(key, account.String()) {
				t.Errorf("%s of account %d: %q does not name it", what, account, key)
			}
		}
	}
	// What is stored is found again by keys of that form, for ever.
	const hash = "ca978112ca1bbdcafac231b39a23dc4d"
	for want, got := range map[string]string{
		"0000000000000001.webhook." + hash:        streams.WebhookKey(1, "a"),
		"login." + hash:                           streams.LoginKey("a"),
		"sms.key.0.0000000000000001." + hash:      streams.KeySubject(0, 1, "a"),
		hash + "a786eff8147c4e72b9807785afee48bb": string(streams.HashToken("a")),
		"6362e5401d838374":                        streams.AccountIDOf("a").String(),
		"9e2ef1ccfcc6cb14":                        streams.DeviceIDOf(1, "a").String(),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if streams.LoginKey("a") == streams.LoginKey("b") || streams.HashToken("a") == streams.HashToken("b") {
		t.Error("two logins or tokens share a key")
	}
	if streams.DeviceKeys(1) != "0000000000000001.*" || streams.WebhookKeys(1) != "0000000000000001.webhook.*" {
		t.Errorf("got %s, %s", streams.DeviceKeys(1), streams.WebhookKeys(1))
	}
	if streams.BarrierSubject(2) != "sms.barrier.2" || streams.HorizonSubject(2) != "sms.horizon.2" {
		t.Errorf("got %s, %s", streams.BarrierSubject(2), streams.HorizonSubject(2))
	}
}

func TestPlaceNumbers(t *testing.T) {
	for _, shard := range []streams.Shard{0, 1, streams.MaxShards - 1} {
		for _, seq := range []uint64{1, 2, 1 << 40} {
			n := streams.PlaceNumber(shard, seq)
			if s, q := streams.ParsePlaceNumber(n); s != shard || q != seq || n != seq*64+uint64(shard) {
				t.Errorf("place %d of shard %d is %d, which is read as %d of %d", seq, shard, n, q, s)
			}
		}
	}
	if got := streams.Shards(3).All(); len(got) != 3 || got[0] != 0 || got[2] != 2 {
		t.Errorf("got shards %v", got)
	}
}

// Ids hold the time to the millisecond, the instance and a sequence, each in bits of its own.
func TestIDParts(t *testing.T) {
	at := streams.Epoch.Add(5 * time.Millisecond)
	ids := streams.NewIDs(func() time.Time { return at }, 9, time.Time{})
	for i := range uint64(3) {
		if got, want := uint64(ids.Message()), uint64(5)<<22|9<<12|i; got != want {
			t.Errorf("id %d: got %x, want %x", i, got, want)
		}
	}
	if got, want := uint64(ids.Lease()), uint64(5)<<22|9<<12|3; got != want {
		t.Errorf("a lease's: got %x, want %x", got, want)
	}
	// An instance that has no number, and a clock before all ids, leave the other parts alone.
	early := streams.NewIDs(func() time.Time { return streams.Epoch.Add(-time.Hour) }, streams.MaxInstance+1, streams.Epoch.Add(-time.Hour))
	if got := uint64(early.Message()); got != 1 {
		t.Errorf("got %x, want the second id of all", got)
	}
	last := streams.Epoch.Add((1<<42 - 1) * time.Millisecond)
	if got, want := streams.FirstIDAt(last), streams.MessageID(1<<42-1)<<22; got != want {
		t.Errorf("the last millisecond: got %v, want %v", got, want)
	}
	if got := streams.FirstIDAt(last.Add(time.Millisecond)); got != ^streams.MessageID(0) {
		t.Errorf("beyond it: got %v, want the highest", got)
	}
	if streams.AccountIDOf("a") == streams.AccountIDOf("b") || streams.DeviceIDOf(1, "a") == streams.DeviceIDOf(2, "a") || streams.DeviceIDOf(1, "a") == streams.DeviceIDOf(1, "b") {
		t.Error("two names share an id")
	}
	if _, err := streams.ParseAccountID("x"); err == nil {
		t.Error("x is no account's id, but gave no error")
	}
}
